package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/testnet"
)

// A Cluster is one daemon for each node of a lab.
type Cluster struct {
	Lab   *testnet.Lab
	Nodes []*Node

	binary string
}

// New prepares a node of the cluster in each node of the lab; nothing runs yet. A
// node is called as its host, unless names say otherwise.
func New(lab *testnet.Lab, binary string, names ...string) *Cluster {
	c := &Cluster{Lab: lab, binary: binary}
	for i, h := range lab.Nodes() {
		name := h.Name()
		if i < len(names) {
			name = names[i]
		}
		c.Nodes = append(c.Nodes, c.NewNode(h, name))
	}
	return c
}

// NewNode prepares a node in the host, which may have others already: each has
// its own data directory and socket. It is not added to Nodes.
func (c *Cluster) NewNode(h *testnet.Host, name string) *Node {
	dir := filepath.Join(c.Lab.Dir(), h.Name()+"."+name)
	return &Node{
		Host: h, Name: name, Dir: dir,
		DataDir: filepath.Join(dir, "data"), Socket: filepath.Join(dir, "sock"), binary: c.binary,
	}
}

// joinCommand is how init and token create end.
var joinCommand = regexp.MustCompile(`echo (\S+) \| raftvip join (\S+) --token-file -`)

// A Ticket is what a node needs to join: from the output of init or token create.
type Ticket struct{ Host, Token string }

// TicketFrom finds the join command in what a command printed.
func TicketFrom(out string) (Ticket, error) {
	m := joinCommand.FindStringSubmatch(out)
	if m == nil {
		return Ticket{}, fmt.Errorf("no join command in %q", out)
	}
	return Ticket{m[2], m[1]}, nil
}

// Found runs init and the daemon on the first node, and join and the daemon on
// the others, and waits until all vote and one owns. Further arguments are those
// of init.
func (c *Cluster) Found(ctx context.Context, initArgs ...string) error {
	if err := c.Begin(ctx, initArgs...); err != nil {
		return err
	}
	return c.WaitFormed(ctx)
}

// Begin is Found without the wait.
func (c *Cluster) Begin(ctx context.Context, initArgs ...string) error {
	first := c.Nodes[0]
	r, err := first.Must(ctx, append([]string{"init", "--name", first.Name}, initArgs...)...)
	if err != nil {
		return err
	}
	ticket, err := TicketFrom(r.Stdout)
	if err != nil {
		return err
	}
	if err := first.Start(); err != nil {
		return err
	}
	if err := first.WaitServing(ctx); err != nil {
		return err
	}
	for _, n := range c.Nodes[1:] {
		if err := n.Join(ctx, ticket); err != nil {
			return err
		}
		if err := n.Start(); err != nil {
			return err
		}
	}
	return nil
}

// WaitOwners waits until every running node names the same owner for each of these
// groups, the one wanted if it is not "", knows of no other group, and sees so many vote.
// It returns the owners.
func (c *Cluster) WaitOwners(ctx context.Context, voters int, want map[string]string) (map[string]*Node, error) {
	owners := make(map[string]*Node)
	err := waitFor(ctx, fmt.Sprintf("all nodes to agree on the owners %v", want), func() error {
		names := maps.Clone(want)
		for _, n := range c.Nodes {
			if !n.Running() {
				continue
			}
			st, err := n.Status(ctx)
			if err != nil {
				return err
			}
			if st.Cluster.Voters != voters {
				return fmt.Errorf("%s: %d of %d vote", n.Name, st.Cluster.Voters, voters)
			}
			if len(st.Groups) != len(want) {
				return fmt.Errorf("%s: %d groups, not %d", n.Name, len(st.Groups), len(want))
			}
			for _, g := range st.Groups {
				name, known := names[g.Name]
				switch {
				case g.Voters != voters:
					return fmt.Errorf("%s: %d of %d vote in group %s", n.Name, g.Voters, voters, g.Name)
				case !known:
					return fmt.Errorf("%s: group %s", n.Name, g.Name)
				case g.Owner == "":
					return fmt.Errorf("%s: group %s has no owner: %s", n.Name, g.Name, g.Why)
				case name != "" && g.Owner != name:
					return fmt.Errorf("%s: owner of %s is %s, not %s", n.Name, g.Name, g.Owner, name)
				}
				names[g.Name] = g.Owner
			}
		}
		for name, owner := range names {
			owners[name] = c.Node(owner)
		}
		return nil
	})
	return owners, err
}

// Join runs join with the ticket.
func (n *Node) Join(ctx context.Context, t Ticket, args ...string) error {
	args = append([]string{"join", t.Host, "--token", t.Token, "--name", n.Name}, args...)
	// A leader that has just been elected refuses for a moment.
	return testnet.WaitFor(ctx, "join of "+n.Name, func() error {
		_, err := n.Must(ctx, args...)
		return err
	})
}

// WaitFormed waits until every running node sees all nodes vote and agrees on one
// owner.
func (c *Cluster) WaitFormed(ctx context.Context) error {
	_, err := c.WaitAgreed(ctx, "", func(st api.Status) error {
		if st.Cluster.Voters != len(c.Nodes) {
			return fmt.Errorf("%d of %d vote", st.Cluster.Voters, len(c.Nodes))
		}
		for _, n := range st.Nodes {
			if !n.Alive || !n.Eligible && n.Role != "witness" {
				return fmt.Errorf("%s: alive %v, %s", n.Name, n.Alive, n.Why)
			}
		}
		return nil
	})
	return err
}

// waitFor is testnet.WaitFor, but a condition that is itself cut short at the end
// does not hide what was wrong before.
func waitFor(ctx context.Context, what string, cond func() error) error {
	var last error
	return testnet.WaitFor(ctx, what, func() error {
		err := cond()
		if err != nil && ctx.Err() != nil && last != nil {
			return last
		}
		last = err
		return err
	})
}

// WaitAgreed waits until every running node names the same owner, the one wanted
// if it is not "", and fulfils the conditions. It returns the owner.
func (c *Cluster) WaitAgreed(ctx context.Context, want string, conds ...func(api.Status) error) (*Node, error) {
	var owner *Node
	err := waitFor(ctx, "all nodes to agree on owner "+want, func() error {
		name := want
		for _, n := range c.Nodes {
			if !n.Running() {
				continue
			}
			st, err := n.Status(ctx)
			if err != nil {
				return err
			}
			if len(st.Groups) != 1 || st.Groups[0].Owner == "" {
				return fmt.Errorf("%s: no owner: %s %s", n.Name, st.Phase, strings.Join(st.Warnings, "; "))
			}
			if name == "" {
				name = st.Groups[0].Owner
			}
			if st.Groups[0].Owner != name || st.Cluster.Leader != name {
				return fmt.Errorf("%s: owner is %s, leader is %s, not %s", n.Name, st.Groups[0].Owner, st.Cluster.Leader, name)
			}
			for _, cond := range conds {
				if err := cond(st); err != nil {
					return fmt.Errorf("%s: %w", n.Name, err)
				}
			}
		}
		owner = c.Node(name)
		if owner == nil {
			return errors.New("no daemon runs")
		}
		return nil
	})
	return owner, err
}

// Node returns the node of this name, or nil.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Others returns the nodes other than n.
func (c *Cluster) Others(n *Node) []*Node {
	var out []*Node
	for _, o := range c.Nodes {
		if o != n {
			out = append(out, o)
		}
	}
	return out
}

// Holders returns the nodes that have the address on an interface, in whatever
// state their daemons are.
func (c *Cluster) Holders(a netip.Addr) ([]string, error) {
	var names []string
	for _, n := range c.Nodes {
		has, err := n.Host.Has(a)
		if err != nil {
			return nil, err
		}
		if has {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

// WaitHeldBy waits until the address is on this node and on no other.
func (c *Cluster) WaitHeldBy(ctx context.Context, n *Node, a netip.Addr) error {
	return testnet.WaitFor(ctx, fmt.Sprintf("%v on %s only", a, n.Name), func() error {
		names, err := c.Holders(a)
		if err == nil && (len(names) != 1 || names[0] != n.Name) {
			err = fmt.Errorf("it is on %v", names)
		}
		return err
	})
}

// WriteFile writes a file of the node, such as its configuration, and returns its path.
func (n *Node) WriteFile(name, content string) (string, error) {
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return "", fmt.Errorf("write file of %s: %w", n.Name, err)
	}
	path := filepath.Join(n.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return "", fmt.Errorf("write file of %s: %w", n.Name, err)
	}
	return path, nil
}

// startWithin bounds how long a daemon may take to serve its socket.
const startWithin = 15 * time.Second
