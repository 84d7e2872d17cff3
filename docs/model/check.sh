#!/bin/sh
# Checks the model of the lease rules: exclusive ownership holds with all of them,
# and fails when any one of them is taken away. README.md explains the rest.
#
#   check.sh         what CI runs, some five minutes on one core
#   check.sh deep    also larger bounds, about half an hour and 4 GB
set -eu

for tool in spin gcc; do
	if ! command -v $tool >/dev/null; then
		echo "error: $tool is not installed" >&2
		echo "hint: on Debian and Ubuntu: apt-get install spin gcc" >&2
		exit 2
	fi
done
model=$(cd "$(dirname "$0")" && pwd)/lease.pml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cd "$work"
failed=0

# run WANT NAME [-DMACRO...] checks one configuration. WANT is what is expected:
# holds, overlap (two nodes answer), rebound (a freed voter is bound by an ordinary
# append) or reached (something that must be possible is).
run() {
	want=$1 name=$2
	shift 2
	begin=$(date +%s)
	rm -f pan* ./*.trail
	optimize=-O0 # a counterexample is found in less time than the optimizer takes
	[ "$want" != holds ] || optimize=-O2
	if ! spin -a "$@" "$model" >spin.log 2>&1 ||
		! gcc $optimize -w -DSAFETY -DNOREDUCE -DNOBOUNDCHECK -DVECTORSZ=128 -DMEMLIM=3900 -o pan pan.c >>spin.log 2>&1; then
		cat spin.log >&2
		exit 1
	fi
	./pan -m100000 -w24 >pan.log 2>&1 || true
	if grep -q 'errors: 0' pan.log && ! grep -Eq 'out of memory|max search depth|memory limit' pan.log; then
		got=holds
	elif ! grep -q 'assertion violated' pan.log; then
		got=unfinished
	elif grep 'assertion violated' pan.log | grep -q owner; then
		got=reached
	elif grep 'assertion violated' pan.log | grep -q freed; then
		got=rebound
	else
		got=overlap
	fi
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log)
	verdict=ok
	if [ "$got" != "$want" ]; then
		verdict="UNEXPECTED, want $want"
		failed=1
	fi
	printf '%-32s %-10s %9s states %4d s  %s\n' "$name" "$got" "$states" $(($(date +%s) - begin)) "$verdict"
	if [ "$got" = unfinished ]; then
		cat pan.log >&2
	fi
}

run holds 'all rules'

# The model is not vacuous.
run reached 'owns' -DREACH=1
run reached 'moves by expiry' -DREACH=2
run reached 'moves before the old lease ends' -DREACH=3
run reached 'takes a release back' -DREACH=4
run reached 'moves to a restarted node' -DREACH=5

for rule in LEASE_NOT_SHORTER NO_SEND_STAMP NO_PROMISE NO_PROMISE_BINDS_SELF NO_PROMISE_AFTER_RESTART \
	NO_VOTE_ON_DISK NO_SECOND_LOOK NO_REVOKE_BEFORE_VOTE NO_REVOKED_REMEMBERED NO_REVOKE_BEFORE_TRANSFER \
	NO_UNBOUND_UNTIL_REBIND NO_REBIND_REFUSED NO_RELEASE_NUMBER NO_CALLS_ENDED NO_TERM_AFTER_RESTART \
	NO_ATOMIC_STAND NO_VOTE_PROMISE NO_ASKED_ANSWERS; do
	run overlap $rule -D$rule
done

# Rules that make moves fast, not exclusive: without them nothing overlaps, but
# what they are there for is gone.
run rebound NO_RELEASED_STAYS_FREE -DNO_RELEASED_STAYS_FREE
run holds '  nothing overlaps' -DNO_RELEASED_STAYS_FREE -DONLY_EXCLUSIVE -DRESTARTS=0
run holds 'NO_PROMISE_FREED: no fast move' -DNO_PROMISE_FREED -DREACH=3 -DRESTARTS=0

# A promise that changes while all this goes on.
up='-DCHANGE=1 -DRELEASES=0' down='-DCHANGE=2 -DRELEASES=0'
run holds 'promise grows' $up
run holds 'promise shrinks' $down -DTERMS=2
run overlap NO_LENGTH_OF_SENDING $up -DNO_LENGTH_OF_SENDING
run overlap NO_STATE_ON_DISK $up -DNO_STATE_ON_DISK
run overlap 'NO_WAIT_FOR_ALL, grows' $up -DNO_WAIT_FOR_ALL
run overlap 'NO_WAIT_FOR_ALL, shrinks' $down -DNO_WAIT_FOR_ALL
run overlap NO_WAIT_FOR_LEASES $down -DNO_WAIT_FOR_LEASES

if [ "${1:-}" = deep ]; then
	run holds 'promise shrinks, three terms' $down
	run holds 'numbered nodes' -DNO_SYMMETRY -DRESTARTS=0
	run holds 'promise of 3 ticks' -DP=3 -DRESTARTS=0
	run holds 'two releases' -DRELEASES=2 -DRESTARTS=0
	run holds 'two restarts' -DRESTARTS=2 -DRELEASES=0
	run holds 'answers in three steps' -DSPLIT -DRESTARTS=0
	run holds '  NO_AGREES' -DSPLIT -DNO_AGREES -DRESTARTS=0
	run holds '  NO_LENGTH_OF_NOW' $down -DNO_LENGTH_OF_NOW
	run holds '  NO_APPLIED_FIRST' $down -DNO_APPLIED_FIRST
fi
exit $failed
