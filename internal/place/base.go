package place

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/raftvip/raftvip/cluster/state"
)

// A node's file says what the whole cluster shall do, and so do other nodes' files and
// the commands. A file that has not been touched for long must not undo what came
// later. So each node remembers its base: what the cluster did when its file last said
// the same. What the cluster does otherwise since then is newer than the file.

// A Content is the cluster-wide part of files, flat: what it says, by what it is about.
type Content map[string]string

const (
	// HeartbeatKey is the key of heartbeat_timeout.
	HeartbeatKey = "heartbeat_timeout"
	garpKey      = "announcement schedule (garp_*)"
	groupKey     = "ownership group"
	orderKey     = "order of virtual_ipaddress"
	instanceHere = "there" // the value of an instance's own key
)

func instanceKey(name string) string { return "instance " + name }
func partKey(name, part string) string {
	return instanceKey(name) + ": " + part
}

// ContentOf flattens instances and the heartbeat timeout that goes with them; 0 leaves
// that out. Nothing is said of the default group: bases and members from before there
// were others do not say it either.
func ContentOf(instances []state.Instance, heartbeat time.Duration) Content {
	c := make(Content)
	for _, in := range instances {
		c[instanceKey(in.Name)] = instanceHere
		c[partKey(in.Name, "virtual_router_id")] = fmt.Sprint(in.VirtualRouterID)
		c[partKey(in.Name, "vrrp")] = vrrpWord(in.VRRP)
		if g := groupName(in); g != state.DefaultGroup {
			c[partKey(in.Name, groupKey)] = g
		}
		c[partKey(in.Name, garpKey)] = fmt.Sprintf("%v", in.GARP)
		if in.VRRP != "" {
			var order []string
			for _, a := range Advertised(in) {
				order = append(order, a.String())
			}
			c[partKey(in.Name, orderKey)] = strings.Join(order, " ")
		}
		for _, a := range in.Addresses {
			c[partKey(in.Name, "address "+a.Prefix.Addr().String())] = describeAddress(a)
		}
	}
	if heartbeat > 0 {
		c[HeartbeatKey] = heartbeat.String()
	}
	return c
}

// fromFiles is the part of the cluster's instances that files brought in.
func fromFiles(all []state.Instance) []state.Instance {
	var out []state.Instance
	for _, in := range all {
		if in.FromFile {
			in.Addresses = slices.DeleteFunc(slices.Clone(in.Addresses), func(a state.Address) bool { return a.Added })
			out = append(out, in)
		}
	}
	return out
}

// Hash is SHA-256, in hex, of everything in the content.
func (c Content) Hash() string {
	b, err := json.Marshal(c) // sorts the keys
	if err != nil {
		panic("place: content cannot be encoded: " + err.Error()) // plain data
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Changes says what was done to get from one content to the other, one per line. only,
// if not nil, chooses among the keys.
func Changes(before, after Content, only func(key string) bool) []string {
	keys := make(map[string]bool)
	for _, c := range []Content{before, after} {
		for k := range c {
			keys[k] = before[k] != after[k] && (only == nil || only(k))
		}
	}
	var lines []string
	moved := movedAddresses(before, after)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if !keys[k] {
			continue
		}
		from, to := before[k], after[k]
		name, part, isPart := strings.Cut(k, ": ")
		ip, isAddress := strings.CutPrefix(part, "address ")
		other, isMoved := moved[ip]
		wholly := isPart && before[name] != after[name] // the instance itself came or went
		what := k
		if isAddress {
			what = name + ": address " + cmp.Or(to, from)
		}
		switch {
		case isAddress && isMoved && to != "":
			lines = append(lines, fmt.Sprintf("address %s moved from %s to %s", to, other, name))
		case isAddress && isMoved:
			// Said where it went.
		case wholly && !isAddress, strings.HasSuffix(k, orderKey) && !sameWords(from, to):
			// The instance's own line says it, or that of vrrp or of an address.
		case part == groupKey:
			lines = append(lines, fmt.Sprintf("%s changed from %s to %s", k, cmp.Or(from, state.DefaultGroup), cmp.Or(to, state.DefaultGroup)))
		case from == "":
			lines = append(lines, what+" added")
		case to == "":
			lines = append(lines, what+" removed")
		case strings.HasSuffix(k, garpKey), strings.HasSuffix(k, orderKey):
			lines = append(lines, k+" changed")
		case isAddress:
			lines = append(lines, fmt.Sprintf("%s: address changed from %s to %s", name, from, to))
		default:
			lines = append(lines, fmt.Sprintf("%s changed from %s to %s", k, from, to))
		}
	}
	return lines
}

// sameWords tells whether two lists have the same words, in whatever order.
func sameWords(a, b string) bool {
	as, bs := strings.Fields(a), strings.Fields(b)
	slices.Sort(as)
	slices.Sort(bs)
	return slices.Equal(as, bs)
}

// movedAddresses are those that are in another instance than before, with that one's key.
func movedAddresses(before, after Content) map[string]string {
	in := func(c Content, other Content) map[string]string {
		out := make(map[string]string)
		for k := range c {
			name, part, _ := strings.Cut(k, ": ")
			if ip, ok := strings.CutPrefix(part, "address "); ok && other[k] == "" {
				out[ip] = name
			}
		}
		return out
	}
	was, is := in(before, after), in(after, before)
	maps.DeleteFunc(was, func(ip, _ string) bool { _, ok := is[ip]; return !ok })
	return was
}

// undone says which newer changes of the cluster a file would undo: what is otherwise
// than at the file's base, and otherwise than in the file. Without a base everything
// that files brought in counts as newer.
func undone(base, cluster, file Content) []string {
	return Changes(base, cluster, func(k string) bool {
		if _, says := file[k]; k == HeartbeatKey && (!says || base[k] == "") {
			return false
		}
		return file[k] != cluster[k]
	})
}

// Agree tells whether the cluster does what the file says.
func Agree(cluster, file Content) bool {
	without := maps.Clone(cluster)
	if _, says := file[HeartbeatKey]; !says {
		delete(without, HeartbeatKey)
	}
	return maps.Equal(without, file)
}

// ClusterContent is what files brought into the cluster.
func ClusterContent(s *state.State) Content {
	return ContentOf(fromFiles(s.Instances), s.Heartbeat.Configured)
}

// maxListed is how many changes a sentence names.
const maxListed = 5

// RefuseOlder refuses, with state.CodeOlder, a file that would undo newer changes. base is
// nil where file and cluster never agreed.
func RefuseOlder(base Content, s *state.State, file Content) error {
	lines := undone(base, ClusterContent(s), file)
	if len(lines) == 0 {
		return nil
	}
	if n := len(lines) - maxListed; n > 0 {
		lines = append(lines[:maxListed], fmt.Sprintf("and %d more", n))
	}
	since := "since it was last in force here"
	if base == nil {
		since = "though it never was in force here"
	}
	return state.Refuse(state.CodeOlder, `bring the file up to date ("raftvip status" shows the differences), or repeat with --force`,
		"the file would undo changes of the cluster that were made %s: %s", since, strings.Join(lines, "; "))
}
