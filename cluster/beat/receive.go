package beat

import "fmt"

// A Replier answers beats; it belongs to one goroutine.
type Replier struct {
	in  Beat
	out Answer
	b   []byte
}

// Reply answers one beat, which is good until the next call. answer is asked about one
// group after the other. The error is that of a message that is none.
func (r *Replier) Reply(m []byte, answer func(Led) Result) ([]byte, error) {
	if err := ParseBeat(m, &r.in); err != nil {
		return nil, err
	}
	r.out.Seq, r.out.Results = r.in.Seq, r.out.Results[:0]
	for _, g := range r.in.Groups {
		r.out.Results = append(r.out.Results, answer(g))
	}
	r.b = AppendAnswer(r.b[:0], r.out)
	return r.b, nil
}

// Serve answers the beats that come in on a connection until it ends.
func Serve(conn Conn, answer func(Led) Result) error {
	var r Replier
	for {
		m, err := conn.Receive()
		if err != nil {
			return err
		}
		reply, err := r.Reply(m, answer)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if err := conn.Send(reply); err != nil {
			return err
		}
	}
}
