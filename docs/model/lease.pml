/*
 * The lease rules of cluster/lease, and of fence.go, transport.go and receive.go in cluster/group, for
 * three voters: at no instant do two nodes answer. README.md says what is modelled
 * and why that is faithful; check.sh runs it. Each rule has a macro, most of them
 * NO_..., that takes it away.
 *
 * One process takes any step that is possible. A step is what happens under one
 * lock; anything may come between two steps, and time is a step as well.
 */

#ifndef P
#define P 2		/* a voter's promise, in ticks of its own clock */
#endif
#ifdef LEASE_NOT_SHORTER
#define L P
#else
#define L (P - 1)	/* a lease, in ticks of the leader's clock */
#endif
#define DRIFT 1		/* ticks that a lease may last longer by a voter's clock */
#define LEASE (L + DRIFT)

/*
 * With CHANGE the promise changes: it grows by a tick (CHANGE=1) or shrinks by one
 * (CHANGE=2). The states of the cluster are numbered: 0 short, 1 from short to long, 2
 * long, 3 from long to short, 4 short. Each node knows one of them, and learns of the
 * later ones at any time. Voters promise the longer one, leaders count on the shorter.
 */
#ifdef CHANGE
#if CHANGE == 1
#define FIRST_STATE 0
#define LAST_STATE 2
#else
#define FIRST_STATE 2
#define LAST_STATE 4
#endif
#define PROMISE(j) (n[j].knows >= 1 && n[j].knows <= 3 -> P + 1 : P)
#define LONG(i) (n[i].knows == 2)
#define SENT_LONG(i, j) K(i, j).sentlong = LONG(i)
#define LEASE_OF(i) (LONG(i) -> LEASE + 1 : LEASE)
#else
#define PROMISE(j) P
#define SENT_LONG(i, j) skip
#define LEASE_OF(i) LEASE
#endif

#ifndef TERMS
#define TERMS 3
#endif
#ifndef RESTARTS
#define RESTARTS 1	/* of any node */
#endif
#ifndef RELEASES
#define RELEASES 1	/* planned moves begun */
#endif

#define NOBODY 3

/* K(i, j).r */
#define CALLED 1	/* the leader has begun to call, nothing has left it yet */
#define SENT 2		/* on a connection to the voter's present process */
/* K(i, j).v */
#define FREE 1		/* the candidate has seen that it may ask (NO_ATOMIC_STAND only) */
#define ASKED 2		/* and the voter has seen that it may vote */

typedef Node {
	/* Raft. Term and vote are on disk. */
	unsigned cur : 2;	/* term */
	unsigned vote : 2;	/* whom it has voted for in cur */
	unsigned cand : 1;	/* stands for election in cur */
	/* The fence of a voter. */
	unsigned newest : 2;	/* newest term heard of or helped */
	unsigned prom : 3;	/* ticks left of the promise */
	unsigned holder : 2;	/* to whom; NOBODY: to whoever it was before the restart */
	unsigned pterm : 2;	/* in what term */
	unsigned freed : 2;	/* newest released term */
	unsigned taken : 2;	/* number of the last release taken back in pterm */
	/* The fence of a leader. */
	unsigned led : 2;	/* term of the ledger; 0: none, or revoked */
	unsigned relno : 2;	/* number of the last release in led */
	unsigned back : 1;	/* it is being taken back */
	unsigned lease : 3;	/* ticks for which it answers */
	unsigned left : 3;	/* ticks for which the kernel answers for a process that was killed */
#ifdef CHANGE
	unsigned knows : 3;	/* the newest state of the cluster that it has applied */
	unsigned wait : 3;	/* ticks for which a lease by the longer promise may run */
	unsigned need : 3;	/* the one that was committed when it was elected */
#endif
};

typedef Link {			/* from one node to another */
	unsigned a : 3;		/* an answer to AppendEntries of term led: the ticks it is good for */
	unsigned b : 3;		/* the same for an answer to rebind */
#ifdef CHANGE
	unsigned sentlong : 1;	/* a was sent by a leader that counted on the longer promise */
#endif
	unsigned unbound : 1;	/* not counted before it has agreed to rebind */
#ifdef SPLIT
	unsigned h : 3;		/* the same before the answer leaves the voter */
	unsigned c : 1;		/* and Raft has consented */
#endif
	unsigned v : 2;		/* RequestVote of term cur */
	unsigned r : 2;		/* "released" */
	unsigned rt : 2;	/*   its term */
	unsigned rn : 2;	/*   its number */
};

Node n[3];
Link l[9];
unsigned restarts : 2;
unsigned releases : 2;
#ifdef CHANGE
unsigned committed : 3;	/* the newest one that is committed */
#endif

#define K(i, j) l[3 * (i) + (j)]
#define ANSWERS(i) (n[i].lease > 0 || n[i].left > 0)
#define BOUND(j, i) (n[j].prom > 0 && n[j].holder != i)	/* j must not help i */

/* What happened so far, for the runs that show that it can happen. */
#ifdef REACH
byte owner = NOBODY;	/* the latest one */
bool ran_out;		/* its lease ran out; nothing else ended it */
byte would;		/* ticks for which the released lease would have lasted and both voters were bound */
bool taken_back;
bool restarted[3];
#define NOTE(x) x
#else
#define NOTE(x) skip
#endif

/* Nodes differ in nothing but their number, so that of states that are the same
   but for the numbers one is enough. */
#ifdef NO_SYMMETRY
#define ALIKE skip
#else
#define ALIKE c_code { in_order(); }
c_code {
static void exchange(int a, int b)
{
	struct Node node = now.n[a];
	struct Link link;
	int i, c = 3 - a - b;

	now.n[a] = now.n[b];
	now.n[b] = node;
	for (i = 0; i < 3; i++) {
		if (now.n[i].vote == a) now.n[i].vote = b;
		else if (now.n[i].vote == b) now.n[i].vote = a;
		if (now.n[i].holder == a) now.n[i].holder = b;
		else if (now.n[i].holder == b) now.n[i].holder = a;
	}
#ifdef REACH
	uchar was = now.restarted[a];
	now.restarted[a] = now.restarted[b];
	now.restarted[b] = was;
	if (now.owner == a) now.owner = b;
	else if (now.owner == b) now.owner = a;
#endif
#define SWAP(x, y) link = now.l[x]; now.l[x] = now.l[y]; now.l[y] = link
	SWAP(3 * a + b, 3 * b + a);
	SWAP(3 * a + c, 3 * b + c);
	SWAP(3 * c + a, 3 * c + b);
}

/* What sorts nodes must not itself depend on their numbers. Ties stay as they
   are: a few states too many. */
static int less_than(int a, int b)
{
#define CMP(x) if (now.n[a].x != now.n[b].x) return now.n[a].x < now.n[b].x
	int c = 3 - a - b;
	CMP(led); CMP(cur); CMP(prom); CMP(lease); CMP(newest); CMP(cand); CMP(left);
	CMP(pterm); CMP(freed); CMP(taken); CMP(relno); CMP(back);
	if ((now.n[a].vote == a) != (now.n[b].vote == b)) return now.n[b].vote == b;
#define CMPL(f, x, y, X, Y) if (now.l[3 * x + y].f != now.l[3 * X + Y].f) return now.l[3 * x + y].f < now.l[3 * X + Y].f
	CMPL(a, c, a, c, b); CMPL(r, c, a, c, b); CMPL(v, c, a, c, b);
	CMPL(unbound, c, a, c, b); CMPL(b, c, a, c, b);
	CMPL(a, a, c, b, c); CMPL(r, a, c, b, c); CMPL(v, a, c, b, c);
	return 0;
}

static void in_order(void)
{
	if (less_than(0, 1)) exchange(0, 1);
	if (less_than(1, 2)) exchange(1, 2);
	if (less_than(0, 1)) exchange(0, 1);
}
}
#endif

/* The first property. Only a lease that begins can break it. */
inline exclusive() {
	assert(!(ANSWERS(0) && ANSWERS(1)) && !(ANSWERS(0) && ANSWERS(2)) && !(ANSWERS(1) && ANSWERS(2)))
}

inline raise(x, to) {
	if
	:: x < to -> x = to
	:: else
	fi
}

inline renew(i, ticks) {
	raise(n[i].lease, ticks);
#if REACH == 1		/* somebody owns */
	assert(!(n[i].lease > 0 && owner == NOBODY));
#elif REACH == 2	/* ownership moves when a lease has run out */
	assert(!(n[i].lease > 0 && owner != NOBODY && owner != i && ran_out));
#elif REACH == 3	/* ownership moves while the lease that was released would still run */
	assert(!(n[i].lease > 0 && owner != NOBODY && owner != i && would > 0));
#elif REACH == 4	/* a release is taken back, and the lease with it */
	assert(!(n[i].lease > 0 && owner == i && taken_back));
#elif REACH == 5	/* ownership moves to a node that has restarted */
	assert(!(n[i].lease > 0 && owner != NOBODY && owner != i && restarted[i]));
#endif
#ifdef REACH
	if
	:: n[i].lease > 0 -> owner = i; ran_out = false
	:: else
	fi;
#endif
	exclusive()
}

/* A voter forgets what can make no difference any more: fewer states. */
inline tidy(j) {
	if
	:: n[j].prom == 0 ->
		n[j].holder = NOBODY;
		if
		:: n[j].newest > n[j].pterm -> n[j].taken = 0
		:: else
		fi;
		if
		:: n[j].taken == 0 -> n[j].pterm = 0
		:: else
		fi
	:: else
	fi;
	if
	:: n[j].freed < n[j].newest -> n[j].freed = 0
	:: else
	fi
}

/* Promise.Heard */
inline heard(j, i, t) {
	if
	:: t < n[j].pterm
#ifndef NO_RELEASED_STAYS_FREE
	:: t >= n[j].pterm && t <= n[j].freed
#endif
	:: else ->
		if
		:: t > n[j].pterm -> n[j].taken = 0
		:: else
		fi;
		n[j].pterm = t; n[j].holder = i; n[j].prom = PROMISE(j)
	fi
}

#ifdef SPLIT
#define NO_ANSWER(i, j) K(i, j).h = 0; K(i, j).c = 0
#else
#define NO_ANSWER(i, j) skip
#endif

inline no_ledger(i) {
	NO_ANSWER(i, 0); NO_ANSWER(i, 1); NO_ANSWER(i, 2);
	n[i].led = 0; n[i].relno = 0; n[i].back = 0;
	K(i, 0).a = 0; K(i, 1).a = 0; K(i, 2).a = 0;
	K(i, 0).b = 0; K(i, 1).b = 0; K(i, 2).b = 0;
	K(i, 0).unbound = 0; K(i, 1).unbound = 0; K(i, 2).unbound = 0
}

inline no_candidate(i) { n[i].cand = 0; K(i, 0).v = 0; K(i, 1).v = 0; K(i, 2).v = 0 }
inline no_release(i, j) { K(i, j).r = 0; K(i, j).rt = 0; K(i, j).rn = 0 }

/* Raft learns of a term. */
inline raft_term(j, t) {
	if
	:: t > n[j].cur -> n[j].cur = t; n[j].vote = NOBODY; no_candidate(j)
	:: else
	fi
}

/* ---- leader i, voter j: AppendEntries ---- */

inline hear(i, j) {
	if
	:: n[i].led >= n[j].newest ->
		n[j].newest = n[i].led; heard(j, i, n[i].led);
#ifndef ONLY_EXCLUSIVE	/* the second property: who is freed stays free until rebind */
		assert(!(n[j].freed == n[i].led && n[j].prom > 0))
#endif
	:: else
	fi
}

inline consent(i, j) { raft_term(j, n[i].led); no_candidate(j) }

#ifdef NO_AGREES
#define AGREES(i, j) true
#else
#define AGREES(i, j) (n[i].led >= n[j].newest)
#endif

#ifndef SPLIT
#define APPEND(i, j) :: d_step { n[i].led > 0 && n[i].led >= n[j].cur -> \
	hear(i, j); \
	consent(i, j); \
	K(i, j).a = LEASE_OF(i); SENT_LONG(i, j); \
	tidy(j); ALIKE }
#else	/* the three steps one by one */
#define APPEND(i, j) \
	:: d_step { n[i].led > 0 -> hear(i, j); K(i, j).h = LEASE; K(i, j).c = 0; tidy(j); ALIKE } \
	:: d_step { K(i, j).h > 0 && !K(i, j).c -> \
		if \
		:: n[i].led >= n[j].cur -> consent(i, j); K(i, j).c = 1 \
		:: else -> K(i, j).h = 0 \
		fi; ALIKE } \
	:: d_step { K(i, j).c -> \
		if \
		:: AGREES(i, j) -> K(i, j).a = K(i, j).h \
		:: else \
		fi; \
		K(i, j).h = 0; K(i, j).c = 0; ALIKE }
#endif

#ifdef NO_SEND_STAMP
#define EVIDENCE(e) LEASE
#else
#define EVIDENCE(e) e
#endif
#ifdef NO_UNBOUND_UNTIL_REBIND
#define COUNTS(i, j) true
#else
#define COUNTS(i, j) !K(i, j).unbound
#endif

#ifndef CHANGE
#define USABLE(i) true
#define GOOD(i, j) skip
#else
#ifdef NO_APPLIED_FIRST
#define USABLE(i) true
#else
#define USABLE(i) (n[i].knows >= n[i].need)
#endif
/* Evidence counts with the length of when it was sent or of now, whichever is shorter. */
#if defined(NO_LENGTH_OF_NOW)
#define GOOD(i, j) skip
#else
#define GOOD(i, j) if \
	:: !LONG(i) && K(i, j).sentlong -> K(i, j).a-- \
	:: GROWS(i, j) -> K(i, j).a++ \
	:: else \
	fi
#endif
#ifdef NO_LENGTH_OF_SENDING
#define GROWS(i, j) LONG(i) && !K(i, j).sentlong
#else
#define GROWS(i, j) false
#endif
#endif

#define ACKNOWLEDGED(i, j) :: d_step { K(i, j).a > 0 && COUNTS(i, j) && USABLE(i) -> \
	GOOD(i, j); \
	renew(i, EVIDENCE(K(i, j).a)); \
	K(i, j).a = 0; ALIKE }

/* Who is at the address of j and is not j, such as a host that was installed anew, has
   promised nothing for it. */
#ifdef NO_ASKED_ANSWERS
#define STRANGER(i, j) :: d_step { n[i].led > 0 -> K(i, j).a = LEASE_OF(i); SENT_LONG(i, j); ALIKE }
#else
#define STRANGER(i, j)
#endif

/* ---- candidate i, voter j ---- */

/* Raft stands whenever it likes: its timers, pre-votes and TimeoutNow matter for
   liveness only. Its own vote is on disk before it asks. */
#define STAND(i) :: d_step { n[i].cur < TERMS -> \
	n[i].cur++; n[i].vote = i; no_candidate(i); n[i].cand = 1; ALIKE }

#ifdef NO_PROMISE_BINDS_SELF
#define MAY_STAND(i) true
#else
#define MAY_STAND(i) !BOUND(i, i)
#endif
#ifdef NO_PROMISE
#define MAY_VOTE(j, i) true
#else
#define MAY_VOTE(j, i) !BOUND(j, i)
#endif
#if defined(NO_SECOND_LOOK) || defined(NO_PROMISE)
#define MAY_LEAVE(j, i) true
#else
#define MAY_LEAVE(j, i) !BOUND(j, i)
#endif

#ifdef NO_ATOMIC_STAND
#define ASK(i, j) \
	:: d_step { n[i].cand && K(i, j).v == 0 && MAY_STAND(i) -> K(i, j).v = FREE; ALIKE } \
	:: d_step { K(i, j).v == FREE && MAY_VOTE(j, i) -> \
		raise(n[i].newest, n[i].cur); tidy(i); K(i, j).v = ASKED; ALIKE }
#else
#define ASK(i, j) :: d_step { n[i].cand && K(i, j).v == 0 && MAY_STAND(i) && MAY_VOTE(j, i) -> \
	raise(n[i].newest, n[i].cur); tidy(i); K(i, j).v = ASKED; ALIKE }
#endif

#ifdef NO_REVOKE_BEFORE_VOTE
#define REVOKE(i) skip
#elif defined(NO_REVOKED_REMEMBERED)
#define REVOKE(i) NOTE(ran_out = false); n[i].lease = 0
#else
#define REVOKE(i) NOTE(ran_out = false); n[i].lease = 0; no_ledger(i)
#endif

#ifdef NO_VOTE_PROMISE
#define VOTED(i, j) skip
#else
#define VOTED(i, j) n[j].taken = 0; n[j].pterm = n[i].cur; n[j].holder = i; n[j].prom = PROMISE(j)
#endif

/* Promise.Voted, and what the vote says of it. */
inline follow(i, j) {
	if
	:: n[j].newest == n[i].cur && n[i].cur > n[j].pterm && n[i].cur > n[j].freed && n[j].prom == 0 ->
		VOTED(i, j); K(i, j).a = LEASE_OF(i); SENT_LONG(i, j)
	:: else
	fi
}

#ifdef CHANGE
#define ELECTED(i) n[i].need = committed
#else
#define ELECTED(i) skip
#endif

/* Raft at j grants the vote and writes it; then fence.grants; then it leaves, and
   with it and its own i has a majority, or has had one already. In a planned move
   (FOLLOW) the voter promises to follow i, and the vote is evidence as well. */
#define VOTE(i, j, FOLLOW) :: d_step { K(i, j).v == ASKED -> \
	K(i, j).v = 0; \
	if \
	:: n[i].cur >= n[j].cur -> \
		raft_term(j, n[i].cur); \
		if \
		:: n[j].vote == NOBODY || n[j].vote == i -> \
			n[j].vote = i; \
			raise(n[j].newest, n[i].cur); \
			tidy(j); \
			if \
			:: n[j].led > 0 && n[j].led < n[i].cur -> REVOKE(j) \
			:: else \
			fi; \
			if \
			:: MAY_LEAVE(j, i) -> \
				if \
				:: n[i].led == n[i].cur \
				:: else -> n[i].cand = 0; no_ledger(i); n[i].led = n[i].cur; ELECTED(i) \
				fi; \
				FOLLOW(i, j) \
			:: else \
			fi \
		:: else \
		fi \
	:: else \
	fi; ALIKE }

#define NO_FOLLOW(i, j) skip
#define PLAIN_VOTE(i, j) VOTE(i, j, NO_FOLLOW)
#ifdef NO_VOTE_EVIDENCE
#define BINDING_VOTE(i, j)
#else
#define BINDING_VOTE(i, j) VOTE(i, j, follow)
#endif

/* ---- planned moves: leader i, voter j ---- */

#ifdef NO_REVOKE_BEFORE_TRANSFER
#define END_LEASE(i) skip
#else
#define END_LEASE(i) n[i].lease = 0
#endif

inline call_release(i, j) {
	K(i, j).unbound = 1; K(i, j).b = 0;
	K(i, j).r = CALLED; K(i, j).rt = n[i].led; K(i, j).rn = n[i].relno
}

#define RELEASE(i, j, k) :: d_step { \
	n[i].led > 0 && (n[i].relno == 0 || n[i].back) && releases < RELEASES -> \
	releases++; n[i].relno = releases; n[i].back = 0; \
	NOTE(ran_out = false); \
	NOTE(would = (n[j].prom >= n[i].lease && n[k].prom >= n[i].lease -> n[i].lease : 0)); \
	END_LEASE(i); \
	call_release(i, j); call_release(i, k); ALIKE }

#ifdef NO_RELEASE_NUMBER
#define TAKEN_BACK(i, j) false
#else
#define TAKEN_BACK(i, j) (K(i, j).rt == n[j].pterm && K(i, j).rn <= n[j].taken)
#endif

#ifdef NO_PROMISE_FREED
#define FREE_VOTER(j, t) skip
#else
#define FREE_VOTER(j, t) raise(n[j].freed, t); n[j].prom = 0
#endif

/* Promise.Release */
#define RELEASED(i, j) \
	:: d_step { K(i, j).r == CALLED -> K(i, j).r = SENT; ALIKE } \
	:: d_step { K(i, j).r == SENT -> \
		raise(n[j].newest, K(i, j).rt); \
		if \
		:: K(i, j).rt < n[j].pterm || TAKEN_BACK(i, j) \
		:: else -> FREE_VOTER(j, K(i, j).rt) \
		fi; \
		no_release(i, j); \
		tidy(j); ALIKE }

#ifdef NO_CALLS_ENDED
#define END_CALL(i, j) skip
#else
#define END_CALL(i, j) if :: K(i, j).r == CALLED -> no_release(i, j) :: else fi
#endif

#define TAKE_BACK(i, j, k) :: d_step { n[i].relno > 0 && !n[i].back -> \
	n[i].back = 1; \
	END_CALL(i, j); END_CALL(i, k); ALIKE }

#ifdef NO_REBIND_REFUSED
#define MAY_REBIND(j, t) true
#else
#define MAY_REBIND(j, t) (n[j].newest <= t && n[j].pterm <= t)
#endif

/* Promise.Rebind, Ledger.Bind */
#define REBIND(i, j) \
	:: d_step { n[i].back && K(i, j).unbound && MAY_REBIND(j, n[i].led) -> \
		if \
		:: n[j].freed == n[i].led -> n[j].freed = 0 \
		:: else \
		fi; \
		heard(j, i, n[i].led); \
		if \
		:: n[j].pterm == n[i].led -> raise(n[j].taken, n[i].relno) \
		:: else \
		fi; \
		K(i, j).b = LEASE; \
		tidy(j); ALIKE } \
	:: d_step { K(i, j).b > 0 -> \
		K(i, j).unbound = 0; \
		NOTE(taken_back = true); \
		renew(i, EVIDENCE(K(i, j).b)); \
		K(i, j).b = 0; ALIKE }

/* ---- restart with the disk ---- */

#ifdef NO_PROMISE_AFTER_RESTART
#define START_PROMISE(i) 0
#else
#define START_PROMISE(i) PROMISE(i)
#endif
#ifdef NO_TERM_AFTER_RESTART
#define START_TERM(i) 0
#else
#define START_TERM(i) n[i].cur
#endif
#ifdef NO_VOTE_ON_DISK
#define LOSE_VOTE(i) n[i].vote = NOBODY
#else
#define LOSE_VOTE(i) skip
#endif

/* Which states a node has applied is on its disk before it says so. */
#if defined(CHANGE) && defined(NO_STATE_ON_DISK)
#define FORGET(i) n[i].knows = FIRST_STATE
#else
#define FORGET(i) skip
#endif

/* What i was about to say to j, and what was on connections to i. */
inline cut(i, j) {
	if
	:: K(i, j).r == CALLED -> no_release(i, j)
	:: else
	fi;
	K(j, i).v = 0; NO_ANSWER(j, i);
	if
	:: K(j, i).r == SENT -> no_release(j, i)
	:: else
	fi
}

#define RESTART(i, j, k) :: d_step { restarts < RESTARTS -> \
	restarts++; \
	NOTE(restarted[i] = true); \
	raise(n[i].left, n[i].lease); n[i].lease = 0; \
	no_ledger(i); no_candidate(i); \
	cut(i, j); cut(i, k); \
	LOSE_VOTE(i); FORGET(i); \
	n[i].newest = n[i].cur; \
	n[i].prom = START_PROMISE(i); n[i].holder = NOBODY; n[i].pterm = START_TERM(i); \
	n[i].freed = 0; n[i].taken = 0; \
	tidy(i); ALIKE }

/* ---- a changed promise ---- */

#ifdef CHANGE
#ifdef NO_WAIT_FOR_ALL
#define ALL_KNOW true
#else
#define ALL_KNOW (n[0].knows == committed && n[1].knows == committed && n[2].knows == committed)
#endif

#ifdef NO_WAIT_FOR_LEASES
#define WAITED(i) true
#else
#define WAITED(i) (n[i].wait == 0)
#endif

/* A change is begun at any time. It is ended by the leader, when all nodes have said that
   they know of it and its own leases of before have run out. */
#define COMMIT :: d_step { committed < LAST_STATE && (committed == 0 || committed == 2) -> committed++ }
#define SETTLE(i) :: d_step { (committed == 1 || committed == 3) && ALL_KNOW && WAITED(i) && \
	n[i].led > 0 && n[i].led >= n[0].newest && n[i].led >= n[1].newest && n[i].led >= n[2].newest -> committed++ }
#define LEARN(i) :: d_step { n[i].knows < committed -> n[i].knows++; \
	if \
	:: n[i].knows == 3 -> n[i].wait = LEASE + 1 \
	:: else \
	fi; ALIKE }
#else
#define COMMIT
#define SETTLE(i)
#define LEARN(i)
#endif

/* ---- time ---- */

inline less(x) {
	if
	:: x > 0 -> x--
	:: else
	fi
}

inline older(x) {
#ifndef NO_SEND_STAMP	/* else it stays as good as new */
	less(x)
#else
	skip
#endif
}

inline tick_node(i) {
#ifdef REACH
	if
	:: n[i].lease == 1 -> ran_out = true
	:: else
	fi;
#endif
	less(n[i].lease); less(n[i].left);
#ifdef CHANGE
	less(n[i].wait);
#endif
	less(n[i].prom); tidy(i)
}

inline older_answer(i, j) {
#ifdef SPLIT
	older(K(i, j).h);
	if
	:: K(i, j).h == 0 -> K(i, j).c = 0
	:: else
	fi
#else
	skip
#endif
}

inline tick_link(i, j) { older(K(i, j).a); older(K(i, j).b); older_answer(i, j) }

#define NODES(X) X(0) X(1) X(2)
#define PAIRS(X) X(0, 1) X(0, 2) X(1, 0) X(1, 2) X(2, 0) X(2, 1)
#define TRIPLES(X) X(0, 1, 2) X(1, 0, 2) X(2, 0, 1)

active proctype all() {
	d_step {
		/* Node 0 has just won term 1 with both votes. */
		n[0].cur = 1; n[1].cur = 1; n[2].cur = 1;
		n[0].newest = 1; n[1].newest = 1; n[2].newest = 1;
		n[0].holder = NOBODY; n[1].holder = NOBODY; n[2].holder = NOBODY;
#ifdef CHANGE
		committed = FIRST_STATE;
		n[0].knows = committed; n[1].knows = committed; n[2].knows = committed;
		n[0].need = committed;
#endif
		n[0].led = 1
	}
	do
	PAIRS(APPEND)
	PAIRS(STRANGER)
	PAIRS(ACKNOWLEDGED)
	NODES(STAND)
	PAIRS(ASK)
	PAIRS(PLAIN_VOTE)
	PAIRS(BINDING_VOTE)
	TRIPLES(RELEASE)
	PAIRS(RELEASED)
	TRIPLES(TAKE_BACK)
	PAIRS(REBIND)
	TRIPLES(RESTART)
	COMMIT
	NODES(SETTLE)
	NODES(LEARN)
	:: d_step {
		tick_node(0); tick_node(1); tick_node(2);
		tick_link(0, 1); tick_link(0, 2); tick_link(1, 0);
		tick_link(1, 2); tick_link(2, 0); tick_link(2, 1);
		NOTE(less(would));
		ALIKE
	   }
	od
}
