package e2e

import (
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/testnet"
)

// TestWitness: two nodes and a witness that runs as an ordinary user, without a
// single capability, survive the loss of any one of the three.
func TestWitness(t *testing.T) {
	c := newCluster(t, setup{nodes: 3, names: []string{"lb1", "lb2", "tie"}})
	ctx := bounded(t, 90*time.Second)
	lb1, lb2, tie := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	must(t, tie.GiveTo(65534))

	r := get[Result](t)(lb1.Must(ctx, "init", "--name", "lb1", "--vip", vip4.String()+"/24@eth0"))
	ticket := get[Ticket](t)(TicketFrom(r.Stdout))
	must(t, lb1.Start())
	must(t, lb1.WaitServing(ctx))
	must(t, lb2.Join(ctx, ticket))
	must(t, lb2.Start())
	must(t, tie.Join(ctx, ticket, "--witness"))
	must(t, tie.Start())
	must(t, tie.WaitServing(ctx))
	must(t, c.WaitFormed(ctx))

	for _, n := range status(t, lb1).Nodes {
		if want := map[string]string{"lb1": "voter", "lb2": "voter", "tie": "witness"}[n.Name]; n.Role != want {
			t.Errorf("%s is %s, want %s", n.Name, n.Role, want)
		}
	}
	fails(t, lb1, 1, []string{"tie", "witness"}, "transfer", "tie")

	owner := get[*Node](t)(c.WaitAgreed(ctx, ""))
	other := lb1
	if owner == lb1 {
		other = lb2
	}
	// The owner fails: the other node and the witness are a majority.
	must(t, owner.Kill())
	get[*Node](t)(c.WaitAgreed(ctx, other.Name))
	get[*testnet.Host](t)(c.Lab.WaitOwner(ctx, vip4, other.Host))
	must(t, owner.Start())
	must(t, c.WaitFormed(ctx))
	// The standby fails: nothing moves.
	must(t, owner.Kill())
	get[*Node](t)(c.WaitAgreed(ctx, other.Name))
	must(t, owner.Start())
	must(t, c.WaitFormed(ctx))
	// The witness fails: nothing moves, and planned moves work.
	must(t, tie.Kill())
	get[*Node](t)(c.WaitAgreed(ctx, other.Name))
	run(t, other, "transfer", owner.Name)
	get[*Node](t)(c.WaitAgreed(ctx, owner.Name))
}
