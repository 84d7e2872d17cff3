package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftvip/raftvip/cluster"
	"github.com/raftvip/raftvip/cluster/state"
	"github.com/raftvip/raftvip/cluster/store"
	"github.com/raftvip/raftvip/internal/advertise"
	"github.com/raftvip/raftvip/internal/api"
	"github.com/raftvip/raftvip/internal/config"
	"github.com/raftvip/raftvip/internal/operate"
	"github.com/raftvip/raftvip/internal/pki"
	"github.com/raftvip/raftvip/internal/place"
	"github.com/raftvip/raftvip/internal/vipaddr"
)

// parseVIP reads ADDRESS[/LENGTH][@INTERFACE].
func parseVIP(text string) (prefix netip.Prefix, dev string, err error) {
	at, dev, named := strings.Cut(text, "@")
	bad := func() (netip.Prefix, string, error) {
		return netip.Prefix{}, "", usageError{fmt.Errorf("virtual address %q: must be ADDRESS[/LENGTH][@INTERFACE], such as 192.0.2.10/24@eth0", text)}
	}
	if named && dev == "" {
		return bad()
	}
	if prefix, err = netip.ParsePrefix(at); err != nil {
		ip, err := netip.ParseAddr(at)
		if err != nil || ip.Zone() != "" {
			return bad()
		}
		prefix = netip.PrefixFrom(ip, ip.BitLen())
	}
	return prefix, dev, nil
}

// parseNewVIP reads one that is to be added.
func parseNewVIP(text string) (prefix netip.Prefix, dev string, err error) {
	prefix, dev, err = parseVIP(text)
	if err == nil {
		if err := vipaddr.CheckLink(prefix, dev); err != nil {
			return prefix, dev, usageError{fmt.Errorf("virtual address %s: %w", prefix, err)}
		}
	}
	return prefix, dev, err
}

// nodeFlags are those that init and join share.
type nodeFlags struct {
	name, advertise string
	now             bool
}

func (n *nodeFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&n.name, "name", "", "what to call this `NODE` (default: node_id of the file, else the host name)")
	c.Flags().StringVar(&n.advertise, "advertise", "", "`HOST[:PORT]` at which the other nodes reach this one")
	c.Flags().BoolVar(&n.now, "now", false, "enable and start the systemd service too")
}

// prepare opens the data directory and makes sure that it is nobody's.
func (n *nodeFlags) prepare(g *globals) (*store.DataDir, *config.Config, error) {
	c, _, err := g.settings().LoadConfig()
	if err != nil {
		return nil, nil, err
	}
	if n.name == "" {
		n.name = c.Raft.NodeID
	}
	if err := state.CheckName(n.name); err != nil {
		return nil, nil, usageError{err}
	}
	data, err := store.OpenDataDir(c.Raft.DataDir)
	if err != nil {
		if errors.Is(err, store.ErrDataDirInUse) {
			err = api.WithHint(err, "a daemon runs with this data dir; name another one with --data-dir")
		}
		return nil, nil, err
	}
	switch old, err := data.Identity(); {
	case err == nil:
		data.Close()
		return nil, nil, otherCluster(&store.OtherClusterError{Path: data.Path(), Existing: old})
	case !errors.Is(err, store.ErrEmptyDataDir):
		data.Close()
		return nil, nil, err
	}
	return data, c, nil
}

func otherCluster(err *store.OtherClusterError) error {
	return api.WithHint(err, fmt.Sprintf(`to go on as that node run "raftvip run"; to make this a new node, leave that cluster first (raftvip leave) and move %s away`, err.Path))
}

// startService is --now.
func (n *nodeFlags) startService(out io.Writer) error {
	if !n.now {
		return nil
	}
	cmd := exec.Command("systemctl", "enable", "--now", "raftvip.service")
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Run(); err != nil {
		return api.WithHint(fmt.Errorf("start the systemd service: %w", err), "the data dir is ready; start the daemon with: raftvip run")
	}
	return nil
}

func initCommand(g *globals) *cobra.Command {
	var n nodeFlags
	var vips []string
	var force bool
	var ttl time.Duration
	var uses int
	c := &cobra.Command{
		Use:   "init",
		Short: "Found a cluster: this is its first node",
		Long: `Found a cluster: make its secret, this node's identity and a join token in the
data directory. The cluster begins when the daemon runs. Virtual addresses come
from --vip and from the configuration file, if there is one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return initCluster(cmd, g, &n, vips, force, ttl, uses)
		},
	}
	n.register(c)
	c.Flags().StringArrayVar(&vips, "vip", nil, "virtual `ADDRESS[/LENGTH][@INTERFACE]`; may be repeated")
	c.Flags().BoolVar(&force, "force", false, "take virtual addresses even if another machine answers for them")
	c.Flags().DurationVar(&ttl, "token-ttl", time.Hour, "how long the printed join token is good")
	c.Flags().IntVar(&uses, "token-uses", 2, "for how many nodes the printed join token is good")
	return c
}

func initCluster(cmd *cobra.Command, g *globals, n *nodeFlags, vips []string, force bool, ttl time.Duration, uses int) error {
	if ttl <= 0 || ttl > operate.MaxTokenTTL || uses < 1 || uses > operate.MaxTokenUses {
		return usageError{fmt.Errorf("--token-ttl must be over 0 and at most %s, --token-uses 1 to %d", operate.MaxTokenTTL, operate.MaxTokenUses)}
	}
	seed, addrs, err := seedOf(vips)
	if err != nil {
		return err
	}
	data, c, err := n.prepare(g)
	if err != nil {
		return err
	}
	defer data.Close()
	out := cmd.OutOrStdout()
	probes := append([]state.Address{}, seed.addresses...)
	for _, in := range c.Instances {
		for _, a := range in.Addresses {
			dev := a.Dev
			if dev == "" {
				dev = in.Interface
			}
			if slices.Contains(addrs, a.Prefix.Addr()) {
				return usageError{fmt.Errorf("--vip %s: the address is in the configuration file too; leave it out here", a.Prefix.Addr())}
			}
			if in.VRRP == nil { // else a VRRP master may well have it
				probes = append(probes, state.Address{Prefix: a.Prefix, Dev: dev})
			}
			addrs = append(addrs, a.Prefix.Addr())
		}
	}
	switch {
	case len(probes) == 0:
	case len(probes) == 1:
		fmt.Fprintf(cmd.ErrOrStderr(), "asking the network whether %s is in use ...\n", probes[0].Prefix.Addr())
	default:
		fmt.Fprintf(cmd.ErrOrStderr(), "asking the network whether any of %d addresses is in use ...\n", len(probes))
	}
	if err := operate.ProbeAddresses(cmd.Context(), probes, force); err != nil {
		return err
	}
	secret := pki.NewSecret()
	if c.Raft.SecretFile != "" {
		if secret, err = operate.ReadSecretFile(c.Raft.SecretFile); err != nil {
			return err
		}
	}
	token, record, err := operate.NewToken(secret, ttl, uses)
	if err != nil {
		return err
	}
	id := store.Identity{
		ClusterID: secret.ClusterID(), NodeID: store.NewNodeID(n.name), Name: n.name,
		Advertise: n.advertise, Witness: c.Raft.Witness, Origin: store.OriginInit,
	}
	if id.Chosen, err = advertise.Address(id, c, nil, addrs); err != nil {
		return err
	}
	s := store.Seed{Tokens: []state.TokenRecord{record}}
	if len(seed.addresses) > 0 {
		s.Instances = []state.Instance{place.DefaultInstance(seed.addresses)}
	}
	if err := data.Create(id, secret, store.Cache{}, &s); err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster %s: first node %s at %s, data in %s\n", id.ClusterID, id.Name, id.Chosen, data.Path())
	for _, a := range probes {
		fmt.Fprintf(out, "virtual address %s\n", a.Prefix)
	}
	if len(probes) == 0 {
		fmt.Fprintln(out, "no virtual address yet; add one with: raftvip vip add 192.0.2.10/24@eth0")
	}
	if !n.now {
		fmt.Fprintf(out, "\nStart it here:\n\n    raftvip run            (or: systemctl enable --now raftvip)\n")
	}
	fmt.Fprintf(out, "\nThen, within %s, on each of %d other nodes:\n\n    %s\n\n", ttl, uses, operate.JoinCommand(id.Chosen, token.Text()))
	fmt.Fprintln(cmd.ErrOrStderr(), "warning:", operate.SurvivalWarning(1))
	return n.startService(out)
}

// seedAddresses are the addresses of --vip.
type seedAddresses struct{ addresses []state.Address }

func seedOf(vips []string) (seed seedAddresses, addrs []netip.Addr, err error) {
	for _, text := range vips {
		prefix, dev, err := parseNewVIP(text)
		if err != nil {
			return seed, nil, err
		}
		for _, a := range addrs {
			if a == prefix.Addr() {
				return seed, nil, usageError{fmt.Errorf("--vip %s: the address is named twice", a)}
			}
		}
		seed.addresses = append(seed.addresses, state.Address{Prefix: prefix, Dev: dev})
		addrs = append(addrs, prefix.Addr())
	}
	return seed, addrs, nil
}

// tokenFlags say where a join token comes from.
type tokenFlags struct{ file, text string }

// maxTokenFile is far more than a token has.
const maxTokenFile = 4096

func (f tokenFlags) read(stdin io.Reader) (string, error) {
	switch {
	case f.file != "" && f.text != "":
		return "", usageError{errors.New("join: --token and --token-file exclude each other")}
	case f.text != "":
		return f.text, nil
	case f.file == "":
		if text := os.Getenv("RAFTVIP_TOKEN"); text != "" {
			return text, nil
		}
		return "", usageError{errors.New("join: --token-file is missing (or --token, or RAFTVIP_TOKEN)")}
	case f.file != "-":
		file, err := os.Open(f.file)
		if err != nil {
			return "", fmt.Errorf("read token: %w", err)
		}
		defer file.Close()
		stdin = file
	}
	b, err := io.ReadAll(io.LimitReader(stdin, maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		name := f.file
		if name == "-" {
			name = "standard input"
		}
		return "", api.WithHint(fmt.Errorf("read token: %s is empty", name), `make one on a member with "raftvip token create"`)
	}
	return string(b), nil
}

func joinCommand(g *globals) *cobra.Command {
	var n nodeFlags
	var from tokenFlags
	var witness, replace bool
	c := &cobra.Command{
		Use:   "join HOST[:PORT] --token-file FILE",
		Short: "Make this node a member of a running cluster",
		Long: `Exchange a join token for membership at any running member. The data directory is
prepared; the node takes part when the daemon runs. The token is read from a file or,
as "-", from standard input; on a command line every user of the machine can see it
while the command runs. A witness votes and never
owns an address: a small third machine that lets two nodes survive a failure.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return join(cmd, g, &n, args[0], from, witness, replace)
		},
	}
	n.register(c)
	c.Flags().StringVar(&from.file, "token-file", "", "read the join token of init or token create from `FILE`, - for standard input (or RAFTVIP_TOKEN)")
	c.Flags().StringVar(&from.text, "token", "", "the join `TOKEN` itself, where nobody else is on the machine")
	c.Flags().BoolVar(&witness, "witness", false, "vote, but never own an address")
	c.Flags().BoolVar(&replace, "replace", false, "take the place of a dead member of the same name")
	return c
}

func join(cmd *cobra.Command, g *globals, n *nodeFlags, host string, from tokenFlags, witness, replace bool) error {
	tokenText, err := from.read(cmd.InOrStdin())
	if err != nil {
		return err
	}
	token, err := pki.ParseToken(tokenText)
	if err != nil {
		return api.WithHint(err, `copy the whole token as "raftvip init" or "raftvip token create" printed it`)
	}
	address := advertise.WithPort(host)
	if err := state.CheckAddress(address); err != nil {
		return usageError{fmt.Errorf("join: %w", err)}
	}
	data, c, err := n.prepare(g)
	if err != nil {
		return err
	}
	defer data.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), 20*time.Second)
	defer cancel()
	fmt.Fprintf(cmd.ErrOrStderr(), "asking %s to admit %s ...\n", address, n.name)
	err = cluster.Reach(ctx, address)
	if err != nil {
		_, port, _ := net.SplitHostPort(address)
		return api.WithHint(err, "is the daemon running there, and does a firewall let TCP port "+port+" through?")
	}
	id := store.Identity{
		NodeID: store.NewNodeID(n.name), Name: n.name, Advertise: n.advertise,
		Witness: witness || c.Raft.Witness, Origin: store.OriginJoin,
	}
	if id.Chosen, err = advertise.Address(id, c, []string{address}, nil); err != nil {
		return err
	}
	got, secret, err := cluster.Join(ctx, address, token, cluster.JoinRequest{
		NodeID: id.NodeID, Name: id.Name, Address: id.Chosen, Witness: id.Witness, Replace: replace, Clock: time.Now(),
	})
	switch {
	case errors.Is(err, cluster.ErrOtherToken):
		return api.WithHint(err, fmt.Sprintf("make one on a member of that cluster: raftvip token create (on %s)", host))
	case errors.Is(err, pki.ErrClock):
		return api.WithHint(err, "set both clocks by NTP, then join again")
	case err != nil:
		return err
	}
	id.ClusterID = got.ClusterID
	cache := store.Cache{Heartbeat: got.Heartbeat}
	voters := 0
	for _, m := range got.Nodes {
		voters++
		if m.ID != id.NodeID {
			cache.Addresses = append(cache.Addresses, m.Address)
		}
	}
	if err := data.Create(id, secret, cache, nil); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s is admitted to cluster %s at %s; data in %s\n", id.Name, id.ClusterID, id.Chosen, data.Path())
	if !n.now {
		fmt.Fprintf(out, "\nStart it:\n\n    raftvip run            (or: systemctl enable --now raftvip)\n\n")
	}
	if text := operate.SurvivalWarning(voters); text != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", text)
	}
	return n.startService(out)
}
