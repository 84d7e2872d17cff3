package e2e

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

func TestHybridFirst(t *testing.T) {
	c := newCluster(t, setup{nodes: 4})
	_ = fmt.Sprint
	k := c.Nodes[3].Host
	c.Nodes = c.Nodes[:3]
	in := Instance{Name: "V", VRID: 51, Priority: 150, VIPs: []netip.Addr{vip4}, VRRP: "hybrid"}
	for i, n := range c.Nodes {
		in.Priority = 150 - i
		n.Config = get[string](t)(n.WriteFile("raftvip.conf", in.Conf()))
	}
	must(t, c.Found(bounded(t, 60*time.Second)))
	o := owner(t, c, nil)
	fmt.Println(run(t, o, "status"))
	in.VRRP, in.Priority = "", 200
	kp := get[*testnet.Proc](t)(c.Lab.StartKeepalived(k, in.Conf()))
	testnet.MustWait(t, 10*time.Second, "keepalived", func() error {
		has, err := k.Has(vip4)
		if err == nil && !has {
			err = fmt.Errorf("no")
		}
		return err
	})
	fmt.Println(run(t, o, "status"))
	must(t, kp.Term())
	owner(t, c, o)
	fmt.Println(run(t, o, "status"))
	fmt.Println(o.Daemon().Output())
	_ = api.Status{}
}

