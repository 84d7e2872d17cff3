package state

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// A Command is one change of the replicated state: exactly one field is set, next
// to At. Times in it are the proposer's, so that all nodes compute the same.
type Command struct {
	At time.Time `json:"at"`
	// Level is the feature level that the command needs, 0 for the first one. See
	// FeatureLevel for what a new field has to say.
	Level int `json:"level,omitempty"`

	Found      *Founding      `json:"found,omitempty"`
	Join       *JoinCommand   `json:"join,omitempty"`
	PutNode    *NodeRecord    `json:"put_node,omitempty"`
	RemoveNode *string        `json:"remove_node,omitempty"` // node ID
	Drain      *DrainCommand  `json:"drain,omitempty"`
	Configure  *Configuration `json:"configure,omitempty"`
	AddVIP     *VIPCommand    `json:"add_vip,omitempty"`
	DelVIP     *netip.Addr    `json:"del_vip,omitempty"`
	Heartbeat  *time.Duration `json:"heartbeat,omitempty"`
	Settle     *struct{}      `json:"settle,omitempty"`
	PutToken   *TokenRecord   `json:"put_token,omitempty"`
	DropToken  *string        `json:"drop_token,omitempty"` // token ID
	Move       *Move          `json:"move,omitempty"`
	Note       *NoteCommand   `json:"note,omitempty"`
	Raise      *RaiseCommand  `json:"raise,omitempty"`
	List       *ListCommand   `json:"list,omitempty" level:"3"`
	Free       *FreeCommand   `json:"free,omitempty" level:"3"`

	// Voters are the IDs of the nodes that a group begins with which the command makes.
	Voters []string `json:"voters,omitempty" level:"3,drop"`
}

// A Founding is the first state of a cluster.
type Founding struct {
	ClusterID string        `json:"cluster_id"`
	Node      NodeRecord    `json:"node"`
	Heartbeat time.Duration `json:"heartbeat"`
	Instances []Instance    `json:"instances"`
	Tokens    []TokenRecord `json:"tokens,omitempty"`
	// Level is the feature level of the founder; 0 is the first one.
	Level int `json:"level,omitempty" level:"2"`
}

// A JoinCommand admits a node.
type JoinCommand struct {
	Node NodeRecord `json:"node"`
	// TokenID is that of the newcomer's token; a node that has shown
	// the cluster secret needs none.
	TokenID string `json:"token_id,omitempty"`
	Trusted bool   `json:"trusted,omitempty"`
	// Level is the feature level that the newcomer understands; 0 is the first one.
	Level int `json:"level,omitempty" level:"2,drop"`
	// Replace is the ID of the lost member whose name and place the newcomer takes, or
	// "". It is removed by the same entry that uses the token, or not at all.
	Replace string `json:"replace,omitempty" level:"2"`
}

// A DrainCommand sets or clears a node's drain flag.
type DrainCommand struct {
	NodeID  string `json:"node_id"`
	Drained bool   `json:"drained"`
}

// A Configuration is the cluster-wide part of a node's file.
type Configuration struct {
	Heartbeat time.Duration `json:"heartbeat,omitempty"` // 0: leave as it is
	Instances []Instance    `json:"instances"`
}

// A VIPCommand adds one address to an instance, which is made if it is not there.
type VIPCommand struct {
	Instance string  `json:"instance"`
	Group    string  `json:"group"`
	Address  Address `json:"address"`
	GARP     GARP    `json:"garp"`
}

// A NoteCommand adds a remark to the newest move of a group to a node.
type NoteCommand struct {
	Group string `json:"group"`
	To    string `json:"to"` // node name
	Note  string `json:"note"`
}

// Apply returns the state after the command, or a refusal and no state. It is
// pure, and the same on every node.
func (s *State) Apply(c Command, index uint64) (*State, error) {
	n := s.clone()
	n.Version = index
	if s.Group != "" && !c.inGroup() || s.Group == "" && c.List != nil {
		return nil, Refuse(CodeBadRequest, "", "the command is for the log of another group")
	}
	if s.Group != "" {
		c = Command{Level: c.Level, At: c.At, Move: c.Move, Note: c.Note, Raise: c.Raise, List: c.List}
	}
	// A first list may need a level that the group was not made with.
	if !s.Founded() && c.Found == nil && c.List == nil && (s.Group == "" || c.Raise == nil) {
		return nil, Refuse(CodeNotReady, "", "the cluster has not been founded yet")
	}
	var err error
	switch {
	case c.Found != nil:
		err = n.found(*c.Found, c.At)
	case c.Join != nil:
		err = n.join(*c.Join, c.At)
	case c.PutNode != nil:
		put := *c.PutNode
		if old, ok := s.Nodes[put.ID]; ok && s.FeatureLevel() >= 2 {
			put.Drained = old.Drained // it may have changed since the proposer looked
		}
		err = n.putNode(put)
	case c.RemoveNode != nil:
		err = n.removeNode(*c.RemoveNode, c.At)
	case c.Drain != nil:
		err = n.drain(*c.Drain)
	case c.Configure != nil:
		err = n.configure(*c.Configure)
	case c.AddVIP != nil:
		err = n.addVIP(*c.AddVIP)
	case c.DelVIP != nil:
		err = n.delVIP(*c.DelVIP)
	case c.Heartbeat != nil:
		err = n.setHeartbeat(*c.Heartbeat)
	case c.Settle != nil:
		n.Heartbeat.Previous = n.Heartbeat.Current
	case c.PutToken != nil:
		n.dropExpired(c.At)
		if n.bounded() {
			err = n.checkToken(*c.PutToken)
		}
		if err == nil {
			n.Tokens[c.PutToken.ID] = *c.PutToken
		}
	case c.DropToken != nil:
		if _, ok := n.Tokens[*c.DropToken]; !ok {
			return nil, Refuse(CodeNotFound, `see "raftvip token list"`, "no token %s", *c.DropToken)
		}
		delete(n.Tokens, *c.DropToken)
	case c.Move != nil:
		n.move(*c.Move, c.At)
	case c.Note != nil:
		err = n.note(*c.Note)
	case c.Raise != nil:
		err = n.raise(*c.Raise)
	case c.List != nil:
		err = n.list(*c.List)
	case c.Free != nil:
		err = n.free(*c.Free)
	default:
		err = Refuse(CodeBadRequest, "", "empty command in the log")
	}
	if err == nil && s.Group == "" && (c.Found != nil || c.Configure != nil || c.AddVIP != nil || c.DelVIP != nil || c.Raise != nil) {
		err = n.regroup(s.Instances, index, c.Voters)
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

// group names an ownership group, beside the default one, that the command is about.
func (c Command) group() string {
	var all []Instance
	switch {
	case c.Configure != nil:
		all = c.Configure.Instances
	case c.AddVIP != nil:
		all = []Instance{{Group: c.AddVIP.Group}}
	}
	for _, in := range all {
		if in.Group != "" && in.Group != DefaultGroup {
			return in.Group
		}
	}
	return ""
}

func (s *State) found(f Founding, at time.Time) error {
	if s.Founded() {
		return Refuse(CodeAlreadyExists, "", "cluster %s exists already", s.ClusterID)
	}
	s.ClusterID = f.ClusterID
	s.Level, s.Format = f.Level, formatOf(f.Level)
	s.Heartbeat = HeartbeatSetting{Configured: f.Heartbeat, Current: f.Heartbeat, Previous: f.Heartbeat}
	f.Node.Joined = at
	if err := s.putNode(f.Node); err != nil {
		return err
	}
	for _, t := range f.Tokens {
		if s.bounded() {
			if err := s.checkToken(t); err != nil {
				return err
			}
		}
		s.Tokens[t.ID] = t
	}
	if s.bounded() {
		if err := checkHeartbeat(f.Heartbeat); err != nil {
			return err
		}
	}
	return s.configure(Configuration{Instances: f.Instances})
}

func (s *State) join(j JoinCommand, at time.Time) error {
	if r, ok := s.Removed[j.Node.ID]; ok {
		return RemovedRefusal(r)
	}
	if j.Level < s.Level {
		return olderRefusal(j.Node.Name, j.Level, s.Level)
	}
	if !j.Trusted {
		t, ok := s.Tokens[j.TokenID]
		switch {
		case !ok || t.Uses <= 0:
			return Refuse(CodeWrongToken, `make a new one on a member with "raftvip token create"`,
				"this cluster does not know the token: it is used up, revoked or wrong")
		case at.After(t.Expires):
			return Refuse(CodeExpiredToken, `make a new one on a member with "raftvip token create"`,
				"the token expired %s ago", at.Sub(t.Expires).Round(time.Second))
		}
		t.Uses--
		if t.Uses == 0 {
			delete(s.Tokens, t.ID)
		} else {
			s.Tokens[t.ID] = t
		}
	}
	if old, ok := s.Nodes[j.Replace]; ok {
		if old.Name != j.Node.Name || old.ID == j.Node.ID {
			return Refuse(CodeBadRequest, "", "%s cannot take the place of %s", j.Node.Name, old.Name)
		}
		if err := s.removeNode(old.ID, at); err != nil {
			return err
		}
	}
	for _, other := range s.Nodes {
		// It would acknowledge for the node that was there.
		if s.Level >= 2 && other.ID != j.Node.ID && other.Address == j.Node.Address {
			return Refuse(CodeAddressInUse, fmt.Sprintf(`if %s is gone: raftvip node remove %s; if this is it, join under its name with --replace`, other.Name, other.Name),
				"the address %s is that of member %s", other.Address, other.Name)
		}
	}
	if old, ok := s.Nodes[j.Node.ID]; ok {
		j.Node.Joined, j.Node.Drained = old.Joined, old.Drained
	} else {
		j.Node.Joined = at
	}
	return s.putNode(j.Node)
}

func (s *State) putNode(n NodeRecord) error {
	if r, ok := s.Removed[n.ID]; ok {
		return RemovedRefusal(r)
	}
	if s.bounded() {
		if err := checkNode(n); err != nil {
			return Refuse(CodeBadRequest, "", "%s", err)
		}
		if _, known := s.Nodes[n.ID]; !known && len(s.Nodes) >= MaxNodes {
			return Refuse(CodeBadRequest, "", "the cluster has %d nodes, and no more are allowed", len(s.Nodes))
		}
	}
	for _, other := range s.Nodes {
		if s.bounded() && other.ID != n.ID && (other.ID == n.Name || other.Name == n.ID) {
			return Refuse(CodeNameTaken, "choose another name with --name", "%s is the identity of one node and the name of another", n.Name)
		}
		if other.ID != n.ID && other.Name == n.Name {
			return Refuse(CodeNameTaken,
				fmt.Sprintf(`choose another name with --name; if %s has lost its data dir, join with --replace`, n.Name),
				"the name %s is taken by a member at %s", n.Name, other.Address)
		}
	}
	n.Claim = max(n.Claim, s.Nodes[n.ID].Claim)
	s.Nodes[n.ID] = n
	return nil
}

func (s *State) removeNode(id string, at time.Time) error {
	n, ok := s.Nodes[id]
	if !ok {
		return Refuse(CodeNotFound, `see "raftvip node list"`, "no node %s", id)
	}
	delete(s.Nodes, id)
	s.Removed[id] = RemovedNode{Name: n.Name, At: at}
	if s.bounded() {
		s.forgetRemoved()
	}
	return nil
}

func (s *State) drain(d DrainCommand) error {
	n, ok := s.Nodes[d.NodeID]
	if !ok {
		return Refuse(CodeNotFound, `see "raftvip node list"`, "no node %s", d.NodeID)
	}
	n.Drained = d.Drained
	s.Nodes[d.NodeID] = n
	return nil
}

func (s *State) configure(c Configuration) error {
	if s.bounded() {
		if err := checkInstances(c.Instances); err != nil {
			return err
		}
		if c.Heartbeat != 0 {
			if err := checkHeartbeat(c.Heartbeat); err != nil {
				return err
			}
		}
	}
	seen := make(map[netip.Addr]string)
	names := make(map[string]bool)
	for _, in := range c.Instances {
		if names[in.Name] {
			return Refuse(CodeBadRequest, "", "instance %s appears twice", in.Name)
		}
		names[in.Name] = true
		for _, a := range in.Addresses {
			if !a.Prefix.IsValid() {
				return Refuse(CodeBadRequest, "", "instance %s has an invalid address", in.Name)
			}
			if other, ok := seen[a.Prefix.Addr()]; ok {
				return Refuse(CodeAddressInUse, `see "raftvip vip list"`, "address %s is in instance %s and in %s", a.Prefix.Addr(), other, in.Name)
			}
			seen[a.Prefix.Addr()] = in.Name
		}
	}
	s.Instances = slices.Clone(c.Instances)
	if c.Heartbeat > 0 {
		s.Heartbeat.Configured = c.Heartbeat
	}
	return nil
}

// setHeartbeat begins a change of the heartbeat timeout. Previous is what some
// voter may still use, and a second change must not forget it.
func (s *State) setHeartbeat(d time.Duration) error {
	if s.Heartbeat.Previous != s.Heartbeat.Current {
		return Refuse(CodeNotReady, "try again when all nodes run", "an earlier change of heartbeat_timeout has not reached every node yet")
	}
	if d <= 0 {
		return Refuse(CodeBadRequest, "", "heartbeat_timeout %s: must be over 0", d)
	}
	if s.bounded() {
		if err := checkHeartbeat(d); err != nil {
			return err
		}
	}
	s.Heartbeat.Current = d
	return nil
}

func (s *State) addVIP(v VIPCommand) error {
	if s.bounded() {
		in := Instance{Name: v.Instance, Group: v.Group, GARP: v.GARP, Addresses: []Address{v.Address}}
		if err := checkInstances(append(slices.Clone(s.Instances), in)); err != nil {
			return err
		}
	}
	if !v.Address.Prefix.IsValid() {
		return Refuse(CodeBadRequest, "", "invalid address")
	}
	if in, a, ok := s.AddressOf(v.Address.Prefix.Addr()); ok {
		return Refuse(CodeAddressInUse, `see "raftvip vip list"`, "address %s is already in instance %s", a.Prefix, in.Name)
	}
	s.ownInstances()
	for i := range s.Instances {
		if s.Instances[i].Name == v.Instance {
			s.Instances[i].Addresses = append(s.Instances[i].Addresses, v.Address)
			return nil
		}
	}
	s.Instances = append(s.Instances, Instance{Name: v.Instance, Group: v.Group, GARP: v.GARP, Addresses: []Address{v.Address}})
	return nil
}

func (s *State) delVIP(ip netip.Addr) error {
	s.ownInstances()
	for i := range s.Instances {
		in := &s.Instances[i]
		for k, a := range in.Addresses {
			if a.Prefix.Addr() == ip {
				in.Addresses = slices.Delete(in.Addresses, k, k+1)
				return nil
			}
		}
	}
	return Refuse(CodeNotFound, `see "raftvip vip list"`, "no virtual address %s", ip)
}

func (s *State) move(m Move, at time.Time) {
	m.Seq = 1
	if k := len(s.Moves); k > 0 {
		m.Seq = s.Moves[k-1].Seq + 1
	}
	if !m.Loss || m.At.IsZero() || m.At.After(at) {
		m.At = at
	}
	if s.bounded() {
		m.Group, m.From, m.To, m.Reason = printable(m.Group, 80), printable(m.From, 80), printable(m.To, 80), printable(m.Reason, MaxText)
	}
	s.Moves = append(s.Moves, m)
	if len(s.Moves) > maxMoves {
		s.Moves = slices.Delete(s.Moves, 0, len(s.Moves)-maxMoves)
	}
}

func (s *State) note(c NoteCommand) error {
	for i := len(s.Moves) - 1; i >= 0; i-- {
		if m := &s.Moves[i]; m.Group == c.Group && m.To == c.To && !m.Loss {
			m.Reason += "; " + c.Note
			if s.bounded() {
				m.Reason = printable(m.Reason, MaxText)
			}
			return nil
		}
	}
	return Refuse(CodeNotFound, "", "no move of group %s to %s", c.Group, c.To)
}

// dropExpired forgets tokens that nobody can use any more.
func (s *State) dropExpired(at time.Time) {
	for id, t := range s.Tokens {
		if at.Sub(t.Expires) > 24*time.Hour {
			delete(s.Tokens, id)
		}
	}
}
