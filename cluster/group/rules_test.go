package group

// Ways in which two nodes could own at once, and the tests that fail without the
// rule that closes each. The first thirteen were seen, or follow, with plain Raft;
// the others were found in this package's own rules by reading and by simulation.
//
//	late replies counted by arrival            TestEvidenceIsStampedBeforeSending
//	evidence of those who are no voters        lease.TestUntil
//	restarted voter votes too early            TestRestartedVoterIsSilent
//	bound voter votes, whatever the flag says  TestBoundVoterHelpsNobodyElse
//	bound voter stands itself                  TestBoundVoterDoesNotStand
//	vote leaves before own lease has ended     TestGrantedVoteEndsOwnLeaseFirst
//	leader heard between grant and sending     TestVoteIsWithheldAfterHearingALeader
//	hand-over while the old lease runs         TestNoHandOverBeforeRelease, TestTransferWithLateReplies
//	release that begins after it was undone    TestNoReleaseAfterTheHandOverIsOver
//	released term bound again by heartbeats    lease.TestPromiseRelease
//	late reply revives a revoked term          TestRevokedTermStaysRevoked
//	failed hand-over, voters still free        TestFailedHandOverComesBackOnlyThroughRebind
//	leader learnt of from two goroutines       TestHeartbeatFastPath
//	pipelined requests are not stamped         TestPipelineIsRefused
//	snapshot does not count as hearing         TestSnapshotCountsAsHearing
//	changed heartbeat timeout                  TestChangeOfHeartbeat
//	longer promise, heard before it was made   TestLongerPromiseCountsFromItsOwnEvidence, lease.TestLedgerLengths
//	voters of before an installed snapshot     TestVotersOfAnInstalledSnapshot
//	restarted voter promises the shorter one   TestShorterPromiseWaitsForLongerLeases, found by the model
//	evidence taken before the log was applied  TestNewLeaderCountsByTheStateItLeadsWith
//	older state puts a shorter promise back    TestTimingFollowsTheNewestState, TestStartKeepsThePromise
//
//	release that arrives after its rebind      lease.TestPromiseLateRelease
//	answer to an earlier rebind                lease.TestLedgerBind
//	older release frees a restarted voter      TestOldReleaseDoesNotFreeARestartedVoter
//	bound again while asking for votes         TestCandidateIsNotBoundAgain
//	acknowledgement after helping a later term TestAcknowledgementIsWithheld
//	consent in a term that is not written down TestNoConsentInATermThatIsNotWritten
//	vote written ahead, forgotten by a crash   TestVoteWrittenAhead
//	log lost beside an intact vote             TestExtentWhole, TestLostLogIsNoticed
//	deaf leader goes on binding its voters     TestHearing, TestDeafOwnerGivesUp (no overlap, a gap)
//	leader that can never own                  TestLeaderThatCannotOwnGivesUp, TestLeadAfterASnapshotThatEndsInARefusal (the same)
//	lone voter needs nobody's vote             TestLoneVoterKeepsItsPromise
//	copy of the leader, helped at once         TestPromiseIsMadeToARun
//	two hold an identity, or it forgot votes   TestBarredNodeTakesNoPart, TestHoldersAreToldApart, TestRolledBackNodeIsFound
//	answer of another node at the address      TestAnswerOfAnotherNodeIsNoEvidence, TestOnlyTheNodeThatWasAskedAnswers
//	repeated beat, stamped anew                beat.TestRepeatedBeatKeepsItsStamp, TestAnswerToABeatIsEvidenceOfItsSending
//	late answer taken for a newer beat's       beat.TestLateAnswerIsOfItsOwnBeat
//	beat agreed to before Raft has accepted it TestBeatBindsAndDoesNotAgreeBeforeItIsFollowed
//	beat of a term that is over                beat.TestGroupThatIsNotLedIsNotListed, TestBeatIsAnsweredAsAHeartbeatIs
//	group that hangs on a node that lives      beat.TestRaftThatHangsIsNotListed (no overlap, an owner for ever)
//	release by who does not lead               TestHostileMemberIsContained, lease.TestWhoMayFreeAVoter
//	vote counted without a promise             TestVoteIsEvidenceOnlyIfItSaysSo, TestVoterInAHandOverIsBound
//	group's lease rests on a removed voter     TestLeaseOfAGroupRestsOnMembers
//	removed leader of a group is followed      TestVoterOfAGroupFollowsMembers
//	members of before the last run             cluster.TestNobodyIsListedBeforeTheLogIsApplied
//	timing of before the last run              cluster.TestGroupBeginsWithTheNewestTiming
//	changed timeout, unknown to a removed one  cluster.TestRemovalBeginsTheChangeAnew
//
//	older list in a group's log                state.TestListOfAGroup, state.TestAddressIsInOneLog
//	word of a leader that lags in default      cluster.TestDoneUpTo
//	address that is about to be put up         daemon.TestReleasedWaitsForTheOwner (one that is left: owner.TestStrayKeepsTheGateShut)
//	group begun anew after its end             cluster.TestEndedGroupDoesNotBeginAnew
//	vote written ahead, found by two starts    store.TestGroupVoteWrittenAheadOutlivesTwoStarts
//	all groups' logs and votes lost at once    store.TestGroupsLostLogIsNoticed
//	state of another group                     TestSnapshotOfAnotherGroupIsRefused, state.TestGroupsLogTakesNothingElse

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/raftvip/raftvip/cluster/beat"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
)

func TestEvidenceIsStampedBeforeSending(t *testing.T) {
	r := newRig(t, 1).awake()
	r.fence.lead(2)
	r.net.before = func() { r.pass(60 * time.Millisecond) }
	sent := r.now()
	if err := r.send(2); err != nil {
		t.Fatal(err)
	}
	if _, until := r.fence.until(); until != sent+rigLength {
		t.Errorf("AppendEntries: lease until sent + %v, want + %v", until-sent, rigLength)
	}
	r.pass(time.Second)
	sent = r.now()
	if err := r.trans.InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{Term: 2}, &raft.InstallSnapshotResponse{}, nil); err != nil {
		t.Fatal(err)
	}
	if r.sink.until != sent+rigLength {
		t.Errorf("InstallSnapshot: lease until sent + %v, want + %v", r.sink.until-sent, rigLength)
	}
}

func TestRestartedVoterIsSilent(t *testing.T) {
	r := newRig(t, 4)
	r.pass(rigPromise - time.Millisecond)
	if granted(r.ask(vote(5, "b"))) || r.raftAsked() != 0 {
		t.Error("a voter that has just started voted")
	}
	if err := r.trans.RequestVote("b", "b", vote(5, "a"), &raft.RequestVoteResponse{}); !errors.Is(err, errPromised) {
		t.Errorf("a voter that has just started stands: %v", err)
	}
	r.pass(time.Millisecond)
	if !granted(r.ask(vote(5, "b"))) {
		t.Error("no vote after the promise")
	}
}

func TestBoundVoterHelpsNobodyElse(t *testing.T) {
	r := newRig(t, 1).awake()
	r.ask(entries(2, "b"))
	before := r.raftAsked()
	r.pass(rigPromise / 3)
	asked := vote(3, "c")
	asked.LeadershipTransfer = true
	if granted(r.ask(asked)) {
		t.Error("voted while bound, for a candidate that says it is a hand-over")
	}
	if granted(r.ask(&raft.RequestPreVoteRequest{RPCHeader: from("c"), Term: 3})) {
		t.Error("pre-voted while bound")
	}
	if r.raftAsked() != before {
		t.Error("Raft was asked, and may have changed its term")
	}
	if !granted(r.ask(vote(3, "b"))) {
		t.Error("no vote for the node it is bound to")
	}
}

// Raft would refuse until its own randomized timer says that the leader is gone.
func TestEndOfPromiseDecidesNotRaftsTimer(t *testing.T) {
	r := newRig(t, 1).awake()
	r.ask(entries(2, "b"))
	r.pass(rigPromise)
	r.ask(vote(3, "c"))
	r.mu.Lock()
	defer r.mu.Unlock()
	req, ok := r.asked[len(r.asked)-1].(*raft.RequestVoteRequest)
	if !ok || !req.LeadershipTransfer {
		t.Errorf("Raft was asked %+v, want the flag that ends its own waiting", r.asked[len(r.asked)-1])
	}
}

// A refusal would cost the candidate a whole new random timeout.
func TestPreVoteIsHeldUntilThePromiseEnds(t *testing.T) {
	r := newRig(t, 1).awake()
	r.ask(entries(2, "b"))
	r.pass(rigPromise - 20*time.Millisecond)
	time.AfterFunc(5*time.Millisecond, func() { r.pass(20 * time.Millisecond) })
	if !granted(r.ask(&raft.RequestPreVoteRequest{RPCHeader: from("c"), Term: 3})) {
		t.Error("refused 20 ms before the promise ended")
	}
}

func TestBoundVoterDoesNotStand(t *testing.T) {
	r := newRig(t, 1).awake()
	r.ask(entries(2, "b"))
	if err := r.trans.RequestVote("c", "c", vote(3, "a"), &raft.RequestVoteResponse{}); !errors.Is(err, errPromised) {
		t.Errorf("RequestVote: %v", err)
	}
	if err := r.trans.RequestPreVote("c", "c", &raft.RequestPreVoteRequest{Term: 3}, &raft.RequestPreVoteResponse{}); !errors.Is(err, errPromised) {
		t.Errorf("RequestPreVote: %v", err)
	}
	if len(r.net.sent) != 0 {
		t.Errorf("sent %v", r.net.sent)
	}
}

func TestGrantedVoteEndsOwnLeaseFirst(t *testing.T) {
	r := newRig(t, 1).awake().leads(2)
	if r.sink.until == 0 {
		t.Fatal("no lease to end")
	}
	if !granted(r.ask(vote(3, "b"))) {
		t.Fatal("not granted")
	}
	if r.sink.revoked < 2 || r.sink.until != 0 {
		t.Errorf("the vote left, and the lease runs until %v", r.sink.until)
	}
	if term, _ := r.fence.until(); term != 0 {
		t.Errorf("still leads in term %d", term)
	}
}

func TestVoteIsWithheldAfterHearingALeader(t *testing.T) {
	r := newRig(t, 1).awake()
	inner := r.raft
	r.raft = func(command any) any {
		if _, ok := command.(*raft.RequestVoteRequest); ok {
			r.fence.heard(2, "b") // while Raft writes the vote to disk
		}
		return inner(command)
	}
	if granted(r.ask(vote(2, "c"))) {
		t.Error("voted for c, having promised b not to")
	}
}

func TestNoHandOverBeforeRelease(t *testing.T) {
	r := newRig(t, 1).awake().leads(2)
	timeoutNow := func() error {
		r.trans.handing.Store(&handing{to: "b", free: func() (func(), error) { return func() {}, nil }})
		return r.trans.TimeoutNow("b", "b", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{})
	}
	if err := timeoutNow(); !errors.Is(err, errNotReleased) {
		t.Errorf("with a lease: %v", err)
	}
	seq := r.fence.release(2, []string{"b", "c"})
	if r.sink.revoked != 2 || r.sink.until != 0 {
		t.Error("released, and still answering")
	}
	if err := timeoutNow(); err != nil {
		t.Errorf("released: %v", err)
	}
	r.fence.bind(2, seq, "c", r.now())
	if err := timeoutNow(); !errors.Is(err, errNotReleased) {
		t.Errorf("after the release was taken back: %v", err)
	}
}

// Raft may ask late, when the hand-over was given up and the voters are bound again.
func TestNoReleaseAfterTheHandOverIsOver(t *testing.T) {
	freed, stopped := 0, 0
	h := &handing{to: "b", free: func() (func(), error) { freed++; return func() { stopped++ }, nil }}
	r := newRig(t, 1).awake().leads(2)
	timeoutNow := func(id raft.ServerID) error {
		return r.trans.TimeoutNow(id, "b", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{})
	}
	r.trans.handing.Store(h)
	if err := timeoutNow("b"); !errors.Is(err, errNotReleased) || freed != 0 {
		t.Errorf("with a lease: %v, freed %d times", err, freed)
	}
	r.fence.release(2, []string{"b", "c"})
	if err := timeoutNow("b"); err != nil || freed != 1 || len(r.net.sent) != 1 {
		t.Errorf("released: %v, freed %d times, sent %v", err, freed, r.net.sent[1:])
	}
	if err := timeoutNow("c"); !errors.Is(err, errNotReleased) {
		t.Errorf("to a node that nothing is handed to: %v", err)
	}
	h.end()()
	if err := timeoutNow("b"); !errors.Is(err, errNotReleased) || freed != 1 || stopped != 1 {
		t.Errorf("over: %v, freed %d times, calls ended %d times", err, freed, stopped)
	}
	r.trans.handing.Store(nil)
	if err := timeoutNow("b"); !errors.Is(err, errNotReleased) || len(r.net.sent) != 1 {
		t.Errorf("nothing under way: %v, sent %v", err, r.net.sent[1:])
	}
}

// Raft would stand again, and give up what it has just won.
func TestTimeoutNowOfAnElectionThatIsOver(t *testing.T) {
	r := newRig(t, 1).awake()
	for _, following := range []bool{true, false} {
		r.mu.Lock()
		r.following = following
		r.mu.Unlock()
		before := r.raftAsked()
		if a := r.ask(&raft.TimeoutNowRequest{}); a.Error != nil {
			t.Error(a.Error)
		}
		if asked := r.raftAsked() > before; asked != following {
			t.Errorf("following %v: Raft was asked: %v", following, asked)
		}
	}
}

func TestRevokedTermStaysRevoked(t *testing.T) {
	r := newRig(t, 1).awake().leads(2)
	r.net.before = func() { r.fence.revoke(2) } // the reply is under way
	if err := r.send(2); err != nil {
		t.Fatal(err)
	}
	r.fence.lead(2) // noticed late
	if _, until := r.fence.until(); until != 0 || r.sink.until != 0 {
		t.Error("a late reply revived a revoked term")
	}
}

func TestFailedHandOverComesBackOnlyThroughRebind(t *testing.T) {
	r := newRig(t, 1).awake().leads(2)
	r.sink.revoked = 0
	seq := r.fence.release(2, []string{"b", "c"})
	r.sink.revoked = 0 // what follows is about the fence, not about this sink
	if err := r.send(2); err != nil {
		t.Fatal(err)
	}
	if _, until := r.fence.until(); until != 0 {
		t.Error("an acknowledgement of a voter that is free gave a lease")
	}
	r.fence.bind(2, seq, "c", r.now())
	if _, until := r.fence.until(); until != r.now()+rigLength {
		t.Errorf("bound again: lease until %v", until)
	}
	r.pass(rigLength / 2)
	if err := r.send(2); err != nil { // b, which is still free
		t.Fatal(err)
	}
	if _, until := r.fence.until(); until != r.now()+rigLength/2 {
		t.Errorf("the acknowledgement of a free voter moved the lease to now + %v", until-r.now())
	}
}

func TestHeartbeatFastPath(t *testing.T) {
	r := newRig(t, 1).awake()
	fast := 0
	r.trans.SetHeartbeatHandler(func(rpc raft.RPC) {
		fast++
		rpc.Respond(&raft.AppendEntriesResponse{Term: rpc.Command.(*raft.AppendEntriesRequest).Term, Success: true}, nil)
	})
	beat := func(term uint64, leader string) raft.RPCResponse {
		answers := make(chan raft.RPCResponse, 1)
		r.net.heartbeat(raft.RPC{Command: &raft.AppendEntriesRequest{RPCHeader: from(leader), Term: term}, RespChan: answers})
		return <-answers
	}
	for _, step := range []struct {
		name   string
		do     func()
		term   uint64
		leader string
		fast   bool
	}{
		{"leader that Raft has not accepted", func() {}, 2, "b", false},
		{"accepted leader", func() {}, 2, "b", true},
		{"another leader", func() {}, 3, "c", false},
		{"the one before", func() {}, 2, "b", false},
		{"candidate", func() { r.following = false }, 3, "c", false},
	} {
		step.do()
		before, asked := fast, r.raftAsked()
		beat(step.term, step.leader)
		if got := fast > before; got != step.fast {
			t.Errorf("%s: fast %v, want %v", step.name, got, step.fast)
		}
		if passed := r.raftAsked() > asked; passed == step.fast {
			t.Errorf("%s: main loop asked: %v", step.name, passed)
		}
	}
	r.following = true
	beat(4, "b")
	r.pass(rigPromise - 1)
	beat(4, "b")
	r.pass(rigPromise - 1)
	if r.fence.bound("c") <= 0 {
		t.Error("a heartbeat on the fast path did not bind")
	}
}

func TestPipelineIsRefused(t *testing.T) {
	r := newRig(t, 1)
	if _, err := r.trans.AppendEntriesPipeline("b", "b"); !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("got %v", err)
	}
}

func TestSnapshotCountsAsHearing(t *testing.T) {
	r := newRig(t, 1).awake()
	r.ask(snapshotOf(2, "b"))
	if granted(r.ask(vote(3, "c"))) {
		t.Error("voted right after a snapshot from the leader")
	}
}

func TestChangeOfHeartbeat(t *testing.T) {
	for _, h := range []state.HeartbeatSetting{
		{Current: 100 * time.Millisecond, Previous: 300 * time.Millisecond},
		{Current: 300 * time.Millisecond, Previous: 100 * time.Millisecond},
	} {
		if h.Promise() != 300*time.Millisecond || h.Counted() != 100*time.Millisecond {
			t.Errorf("%+v: promise %v, counted %v: want the longer and the shorter", h, h.Promise(), h.Counted())
		}
	}
	r := newRig(t, 1).awake()
	r.fence.setTiming(1, 3*rigPromise, rigLength)
	r.ask(entries(2, "b"))
	r.fence.setTiming(2, rigPromise, rigLength) // settled: the running promise stays
	r.pass(2 * rigPromise)
	if granted(r.ask(vote(3, "c"))) {
		t.Error("a running promise was shortened")
	}
}

// A voter that has heard the request before it knew of the change has promised less.
func TestLongerPromiseCountsFromItsOwnEvidence(t *testing.T) {
	r := newRig(t, 1).awake().leads(2)
	old := r.now()
	r.pass(10 * time.Millisecond)
	r.fence.setTiming(1, 10*rigPromise, 10*rigLength)
	if _, until := r.fence.until(); until != old+rigLength {
		t.Errorf("evidence of before the change: lease until %v after it, want %v", until-old, rigLength)
	}
	r.pass(10 * time.Millisecond)
	sent := r.now()
	r.net.before = func() { // the change is made while a request is under way
		r.pass(10 * time.Millisecond)
		r.fence.setTiming(2, 10*rigPromise, rigLength)
		r.fence.setTiming(3, 10*rigPromise, 10*rigLength)
		r.pass(10 * time.Millisecond)
	}
	if err := r.send(2); err != nil {
		t.Fatal(err)
	}
	if _, until := r.fence.until(); until != sent+rigLength {
		t.Errorf("a request of before the change: lease until %v after it, want %v", until-sent, rigLength)
	}
	r.net.before = nil
	sent = r.now()
	r.pass(1)
	if err := r.send(2); err != nil {
		t.Fatal(err)
	}
	if _, until := r.fence.until(); until != sent+1+10*rigLength {
		t.Errorf("a request of after the change: lease until %v after it, want %v", until-sent, 10*rigLength)
	}
}

// The owner is frozen with a lease by the longer promise. A voter that is restarted then
// has forgotten that promise, and must not start with a shorter one.
func TestShorterPromiseWaitsForLongerLeases(t *testing.T) {
	r := newRig(t, 1).awake().leads(2)
	r.fence.setTiming(1, 10*rigPromise, 10*rigLength)
	r.pass(1)
	if err := r.send(2); err != nil {
		t.Fatal(err)
	}
	_, until := r.fence.until()
	if until != r.now()+10*rigLength || !r.fence.shortened() {
		t.Fatalf("lease for %v, shortened %v", until-r.now(), r.fence.shortened())
	}
	r.fence.setTiming(2, 10*rigPromise, rigLength)
	for r.now() < until {
		if r.fence.shortened() {
			t.Fatalf("said to be over while a lease runs for %v", until-r.now())
		}
		r.pass(rigLength)
	}
	if !r.fence.shortened() {
		t.Error("waits although no longer lease runs")
	}
}

// Voters may have a shorter promise, long since, than whoever has just been elected knows.
func TestNewLeaderCountsByTheStateItLeadsWith(t *testing.T) {
	r := newRig(t, 1).awake()
	r.peers = []string{"a", "b", "c", "d", "e"}
	r.fence.setTiming(1, 10*rigPromise, 10*rigLength)
	r.pass(1)
	sent := r.now()
	for _, voter := range []string{"b", "c", "d"} { // before this node has applied the log
		r.fence.acknowledged(2, voter, sent)
	}
	r.fence.setTiming(2, rigPromise, rigLength)
	r.fence.lead(2)
	if _, until := r.fence.until(); until != sent+rigLength {
		t.Errorf("lease until %v after the request, want %v", until-sent, rigLength)
	}
}

func TestTimingFollowsTheNewestState(t *testing.T) {
	r := newRig(t, 1).awake()
	r.fence.setTiming(5, 3*rigPromise, 2*rigLength)
	r.fence.setTiming(4, rigPromise, rigLength)
	r.fence.setTiming(0, rigPromise, rigLength)
	if promise, length := r.fence.timing(); promise != 3*rigPromise || length != 2*rigLength {
		t.Errorf("promise %v, length %v: an older state came late and counts", promise, length)
	}
	r.fence.setTiming(6, rigPromise, rigLength)
	if promise, length := r.fence.timing(); promise != rigPromise || length != rigLength {
		t.Errorf("promise %v, length %v: the newest state does not count", promise, length)
	}
}

// A process that starts applies its log again, from states that are older than the one
// that it told its leader of.
func TestStartKeepsThePromise(t *testing.T) {
	directed(t, 3, func(s *sim, _ *simHost, others []*simHost) {
		h := others[0]
		h.kill()
		h.cache = store.Cache{Heartbeat: state.HeartbeatSetting{Current: 5 * s.hb, Previous: s.hb}, Version: 1 << 40}
		h.boot()
		s.within(time.Second, "the log is applied again", func() bool { return h.proc.group.machine.state.Load().Founded() })
		s.advance(time.Second)
		if promise, _ := h.proc.group.fence.timing(); promise != 5*s.hb {
			t.Errorf("promises %v, had promised %v", promise, 5*s.hb)
		}
	})
}

func TestOldReleaseDoesNotFreeARestartedVoter(t *testing.T) {
	// It had promised the leader of term 7, and has forgotten it.
	r := newRig(t, 7)
	r.fence.freed(6, 1)
	if granted(r.ask(vote(8, "c"))) {
		t.Error("freed by a release that is older than the term it knows")
	}
	r.fence.freed(7, 1)
	if !granted(r.ask(vote(8, "c"))) {
		t.Error("not freed by the release of the term it knows")
	}
}

func TestCandidateIsNotBoundAgain(t *testing.T) {
	r := newRig(t, 1).awake()
	r.ask(entries(2, "b"))
	r.fence.freed(2, 1)
	if err := r.trans.RequestVote("c", "c", vote(3, "a"), &raft.RequestVoteResponse{}); err != nil {
		t.Fatal(err)
	}
	if r.fence.rebind(2, 1, "b") {
		t.Error("bound to b in term 2, having asked for votes in term 3")
	}
}

func TestAcknowledgementIsWithheld(t *testing.T) {
	r := newRig(t, 1).awake()
	inner := r.raft
	r.raft = func(command any) any {
		r.fence.grants(3, "c", false) // Raft grants a vote in a later term meanwhile
		return inner(command)
	}
	for _, command := range []any{entries(2, "b"), snapshotOf(2, "b")} {
		if a := r.ask(command); !errors.Is(a.Error, errMovedOn) {
			t.Errorf("%T: answered %+v, %v", command, a.Response, a.Error)
		}
	}
	r.raft = func(any) any { return &raft.AppendEntriesResponse{Term: 3} }
	if a := r.ask(entries(2, "b")); a.Error != nil {
		t.Errorf("a refusal was withheld, which tells the leader of the later term: %v", a.Error)
	}
	// The same on the fast path.
	r.raft = inner
	r.ask(entries(4, "b"))
	r.trans.SetHeartbeatHandler(func(rpc raft.RPC) {
		r.fence.heard(5, "c")
		rpc.Respond(&raft.AppendEntriesResponse{Term: 4, Success: true}, nil)
	})
	answers := make(chan raft.RPCResponse, 1)
	r.net.heartbeat(raft.RPC{Command: &raft.AppendEntriesRequest{RPCHeader: from("b"), Term: 4}, RespChan: answers})
	if a := <-answers; !errors.Is(a.Error, errMovedOn) {
		t.Errorf("heartbeat: answered %+v, %v", a.Response, a.Error)
	}
}

// It would not know the term after a restart, and an older release could free it.
func TestNoConsentInATermThatIsNotWritten(t *testing.T) {
	r := newRig(t, 1).awake()
	saved := false
	r.trans.termSaved = func() bool { return saved }
	for _, command := range []any{entries(2, "b"), snapshotOf(2, "b")} {
		if a := r.ask(command); !errors.Is(a.Error, errTerm) {
			t.Errorf("%T: answered %+v, %v", command, a.Response, a.Error)
		}
	}
	saved = true
	if a := r.ask(entries(2, "b")); a.Error != nil {
		t.Errorf("written down: %v", a.Error)
	}
}

// In a planned move the voter promises to follow the candidate, says so in its vote,
// and keeps it.
func TestVoterInAHandOverIsBound(t *testing.T) {
	handover := vote(3, "c")
	handover.LeadershipTransfer = true
	said := func(a raft.RPCResponse) bool {
		resp, ok := a.Response.(*raft.RequestVoteResponse)
		return ok && bytes.Equal(resp.Peers, votedAndBound)
	}
	r := newRig(t, 1).awake()
	r.ask(entries(2, "b"))
	r.fence.freed(2, 1)
	if a := r.ask(handover); !granted(a) || !said(a) {
		t.Fatalf("answered %+v, want a vote that binds", a.Response)
	}
	if granted(r.ask(vote(4, "b"))) || r.fence.bound("b") != rigPromise {
		t.Error("c may count on this voter, and it helps b")
	}
	if a := r.ask(handover); said(a) {
		t.Error("the promise was given twice, by one vote that was asked for twice")
	}
	// Another election: nobody counts on the vote.
	r = newRig(t, 1).awake()
	if a := r.ask(vote(3, "c")); !granted(a) || said(a) || r.fence.bound("b") > 0 {
		t.Errorf("answered %+v, bound for %v: want a plain vote", a.Response, r.fence.bound("b"))
	}
	// The leader of a later term is heard while Raft writes the vote.
	r = newRig(t, 1).awake()
	inner := r.raft
	r.raft = func(command any) any {
		if _, ok := command.(*raft.RequestVoteRequest); ok {
			r.fence.heard(4, "b")
		}
		return inner(command)
	}
	if a := r.ask(handover); granted(a) || said(a) {
		t.Error("promised to follow c, having heard b lead")
	}
	// Raft says no.
	r = newRig(t, 1).awake()
	r.raft = func(any) any { return &raft.RequestVoteResponse{Term: 3} }
	if a := r.ask(handover); granted(a) || said(a) || r.fence.bound("b") > 0 {
		t.Error("bound by a vote that was not given")
	}
}

func TestVoteIsEvidenceOnlyIfItSaysSo(t *testing.T) {
	for _, c := range []struct {
		name string
		resp raft.RequestVoteResponse
		want bool
	}{
		{"binds", raft.RequestVoteResponse{Term: 3, Granted: true, Peers: votedAndBound}, true},
		{"plain", raft.RequestVoteResponse{Term: 3, Granted: true}, false},
		{"of another version", raft.RequestVoteResponse{Term: 3, Granted: true, Peers: []byte("peers")}, false},
		{"refused", raft.RequestVoteResponse{Term: 3, Peers: votedAndBound}, false},
		{"of another term", raft.RequestVoteResponse{Term: 4, Granted: true, Peers: votedAndBound}, false},
	} {
		r := newRig(t, 1).awake()
		r.net.voted = &c.resp
		r.net.before = func() { r.pass(20 * time.Millisecond) }
		sent := r.now()
		if err := r.trans.RequestVote("b", "b", vote(3, "a"), &raft.RequestVoteResponse{}); err != nil {
			t.Fatal(err)
		}
		r.fence.lead(3)
		_, until := r.fence.until()
		if want := sent + rigLength; c.want && until != want || !c.want && until != 0 {
			t.Errorf("%s: lease until sent + %v, want + %v if it counts (%v), else none", c.name, until-sent, rigLength, c.want)
		}
	}
}

// A vote may be asked for before the old leader's release arrives.
func TestVoteAwaitsTheRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it waits for a moment only, however busy the machine is
		r := newRig(t, 1).awake()
		r.ask(entries(2, "b"))
		time.AfterFunc(2*time.Millisecond, func() { r.fence.freed(2, 1) })
		handover := vote(3, "c")
		handover.LeadershipTransfer = true
		if !granted(r.ask(handover)) {
			t.Error("refused a moment before the release came")
		}
	})
}

func TestLoneVoterKeepsItsPromise(t *testing.T) {
	r := newRig(t, 1).awake()
	r.ask(entries(2, "b")) // which then takes itself out of the configuration
	r.peers = []string{"a"}
	r.fence.lead(3)
	if _, until := r.fence.until(); until != 0 {
		t.Error("owns while bound to another node")
	}
	r.pass(rigPromise)
	r.fence.tick()
	if r.sink.until != r.now()+rigLength {
		t.Errorf("lease until %v after the promise", r.sink.until)
	}
}

// A copy of the leader's data directory is no leader that its voters follow.
func TestPromiseIsMadeToARun(t *testing.T) {
	r := newRig(t, 1).awake()
	as := func(boot string, command any) raft.RPCResponse {
		answers := make(chan raft.RPCResponse, 1)
		r.net.consumer <- raft.RPC{Command: command, RespChan: answers, Reader: &speech{from: Speaker{ID: "b", Boot: boot}}}
		return <-answers
	}
	as("1111111111111111", entries(2, "b"))
	if granted(as("2222222222222222", vote(3, "b"))) {
		t.Error("voted for a copy of the leader while bound to the original")
	}
	if !granted(as("1111111111111111", vote(3, "b"))) {
		t.Error("did not vote for the leader that it follows")
	}
	if id, _ := r.fence.promise.Holder(); nodeOf(id) != "b" {
		t.Errorf("follows %q", id)
	}
}

func TestBarredNodeTakesNoPart(t *testing.T) {
	r := newRig(t, 1).awake().leads(2)
	r.fence.bar("two hold its identity")
	if _, until := r.fence.until(); until != 0 || r.sink.until != 0 {
		t.Error("still has a lease")
	}
	if err := r.send(3); err != nil {
		t.Fatal(err)
	}
	r.fence.lead(3)
	if _, until := r.fence.until(); until != 0 || r.sink.until != 0 {
		t.Error("has a lease again")
	}
	r.pass(10 * rigPromise)
	if granted(r.ask(vote(4, "c"))) {
		t.Error("voted")
	}
	if err := r.trans.RequestVote("b", "b", vote(5, "a"), &raft.RequestVoteResponse{}); !errors.Is(err, errPromised) {
		t.Errorf("stood for election: %v", err)
	}
	if a := r.ask(entries(6, "c")); a.Error == nil {
		t.Error("agreed to what a leader asked")
	}
	// Each of the fence's answers by itself: one that was on its way through Raft when the
	// node was barred has passed those before.
	r.pass(10 * rigPromise)
	leaves, _ := r.fence.grants(7, "c", false)
	for what, yes := range map[string]bool{
		"is free to help":         r.fence.bound("c") <= 0,
		"lets a vote leave":       leaves,
		"asks for votes":          r.fence.campaigns(8),
		"lets consent leave":      r.fence.agrees(9),
		"is bound again":          r.fence.rebind(9, 1, "c"),
		"is free after a release": func() bool { r.fence.freed(9, 2); return r.fence.bound("c") <= 0 }(),
	} {
		if yes {
			t.Errorf("barred, and %s", what)
		}
	}
}

// How long the voters of a group promise is in another log than its configuration. A node
// that was removed there knows of no change since.
func TestLeaseOfAGroupRestsOnMembers(t *testing.T) {
	members := map[string]bool{"a": true, "c": true}
	of := func(id string) bool { return members[id] }
	r := newRig(t, 1).awake()
	r.fence.member = of
	r.fence.lead(2)
	if err := r.send(2); err != nil { // to b, which agrees
		t.Fatal(err)
	}
	if r.sink.until != 0 {
		t.Error("a removed voter's consent is a lease")
	}
	seq := r.fence.release(2, []string{"b"})
	r.fence.bind(2, seq, "b", r.now())
	if _, until := r.fence.until(); until != 0 {
		t.Error("a removed voter that is bound again is a lease")
	}
	members["b"] = true
	r = newRig(t, 1).awake()
	r.fence.member = of
	r.leads(2)
	members["a"] = false
	if _, until := r.fence.until(); until != 0 {
		t.Error("a removed leader has a lease")
	}
}

func TestVoterOfAGroupFollowsMembers(t *testing.T) {
	r := newRig(t, 1).awake()
	removed := false
	r.fence.member = func(id string) bool { return !removed || id != "b" }
	fast := 0
	r.trans.SetHeartbeatHandler(func(rpc raft.RPC) {
		fast++
		rpc.Respond(&raft.AppendEntriesResponse{Term: 2, Success: true}, nil)
	})
	r.ask(entries(2, "b"))
	if r.beaten(2, "b"); fast != 1 {
		t.Fatal("a member is not followed")
	}
	r.fence.freed(2, 1)
	removed = true
	asked := r.raftAsked()
	for what, request := range map[string]any{
		"entries": entries(2, "b"), "a snapshot": snapshotOf(2, "b"), "a vote": vote(3, "b"),
		"a question": &raft.RequestPreVoteRequest{RPCHeader: from("b"), Term: 3}, "a call": &raft.TimeoutNowRequest{RPCHeader: from("b")},
	} {
		if a := r.ask(request); !errors.Is(a.Error, errNotMember) {
			t.Errorf("%s of a removed node: %+v", what, a)
		}
	}
	answers := make(chan raft.RPCResponse, 1)
	r.net.heartbeat(raft.RPC{Command: entries(2, "b"), RespChan: answers})
	if a := <-answers; !errors.Is(a.Error, errNotMember) {
		t.Errorf("its heartbeat: %+v", a)
	}
	if got := r.beaten(2, "b"); got.Verdict != beat.Failed {
		t.Errorf("its beat: %+v", got)
	}
	if fast != 1 || r.raftAsked() != asked {
		t.Error("Raft has heard of it")
	}
	if r.fence.rebind(2, 1, "b") {
		t.Error("bound again to it")
	}
	if r.fence.bound("c") > 0 {
		t.Error("the voter is bound to it")
	}
	if !granted(r.ask(vote(3, "c"))) {
		t.Error("no vote for a member")
	}
}
