// Package beat carries heartbeats between nodes: one message for each pair of nodes, at
// one pace, for all groups that its sender leads. What a beat says of a group is what an
// ordinary heartbeat of that group's leader says, and its answer is one to that: neither
// evidence nor promise knows of it. It saves waking up, which is what an idle node costs.
package beat
