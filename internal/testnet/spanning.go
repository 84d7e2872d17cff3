package testnet

import (
	"context"
	"fmt"
	"time"
)

// SpanningTree turns the spanning tree protocol of the network's switch on: a port
// that comes up from now on forwards nothing for twice the delay, which is 2 to 30 s.
// Ports that are up go on forwarding.
func (l *Lab) SpanningTree(ctx context.Context, n Network, delay time.Duration) error {
	_, err := l.sw.Exec(ctx, "ip", "link", "set", fmt.Sprintf("br%d", int(n)), "type", "bridge",
		"stp_state", "1", "forward_delay", fmt.Sprint(int(delay/(10*time.Millisecond))))
	if err != nil {
		return fmt.Errorf("testnet: spanning tree on %v: %w", n, err)
	}
	return nil
}
