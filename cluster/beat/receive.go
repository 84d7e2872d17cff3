package beat

import "fmt"

// Serve answers the beats that come in on a connection until it ends. answer is asked
// about one group after the other.
func Serve(conn Conn, answer func(Led) Result) error {
	var in Beat
	var out Answer
	var b []byte
	for {
		m, err := conn.Receive()
		if err != nil {
			return err
		}
		if err := ParseBeat(m, &in); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		out.Seq, out.Results = in.Seq, out.Results[:0]
		for _, g := range in.Groups {
			out.Results = append(out.Results, answer(g))
		}
		b = AppendAnswer(b[:0], out)
		if err := conn.Send(b); err != nil {
			return err
		}
	}
}
