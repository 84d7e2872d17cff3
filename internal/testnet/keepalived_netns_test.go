package testnet

import (
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/boottime"
)

// The checker finds what is known to be wrong with keepalived: freeze the master
// and its kernel goes on answering while the backup takes over. That the judge
// can say guilty is what makes its "not guilty" worth something.
func TestKeepalivedFrozenMasterViolatesP1(t *testing.T) {
	l := ForTest(t, Options{Nodes: 2})
	if _, err := exec.LookPath("keepalived"); err != nil {
		t.Fatal("keepalived is not installed: make setup")
	}
	vip := l.VIP4(100)
	config := func(h *Host, state string, prio int) string {
		return fmt.Sprintf(`global_defs {
    router_id %s
    vrrp_garp_master_delay 0
}
vrrp_instance V {
    state %s
    interface eth0
    virtual_router_id 51
    priority %d
    advert_int 0.1
    version 3
    virtual_ipaddress {
        %v/32
    }
}
`, h, state, prio, vip)
	}
	p := startProber(t, l, vip)
	var procs []*Proc
	for i, h := range l.Nodes() {
		k, err := l.StartKeepalived(h, config(h, []string{"MASTER", "BACKUP"}[i], 150-50*i))
		if err != nil {
			t.Fatal(err)
		}
		procs = append(procs, k)
		mustAnswer(t, p, vip, "n1") // the backup starts when there is a master
	}
	cap, err := l.Observer().StartCapture(Front)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	settled := boottime.Now()
	time.Sleep(200 * time.Millisecond)
	if err := CheckP1(p.Since(settled), DefaultWindow).Err(); err != nil {
		t.Fatalf("before the fault: %v", err)
	}
	if n := len(procs[0].Tree()); n != 2 {
		t.Errorf("%d processes of keepalived, want parent and child", n)
	}

	from := boottime.Now()
	if err := procs[0].SignalTree(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	if err := procs[0].SignalTree(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	rep := CheckP1(p.Since(from), DefaultWindow)
	t.Logf("%v; n2 announced %d times", rep.Err(), cap.Count(vip, "n2"))
	if rep.Err() == nil || rep.Overlap < 300*time.Millisecond {
		t.Errorf("frozen master not found: overlap %v", rep.Overlap)
	}
	if names, err := l.Owners(vip); err != nil || len(names) == 0 {
		t.Errorf("owners %v, %v", names, err)
	}

	// A clean stop is a clean change.
	if _, err := l.WaitOwner(t.Context(), vip); err != nil {
		t.Fatal(err)
	}
	mustAnswer(t, p, vip, "n1")
	from = boottime.Now()
	if err := procs[0].Term(); err != nil {
		t.Fatal(err)
	}
	mustAnswer(t, p, vip, "n2")
	if _, err := procs[0].Wait(5 * time.Second); err != nil {
		t.Errorf("keepalived: %v", err)
	}
	if err := CheckP1(p.Since(from), DefaultWindow).Err(); err != nil {
		t.Errorf("planned stop: %v", err)
	}
}
