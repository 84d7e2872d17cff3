package check

// A counter turns single results of a script into its state, by the numbers of
// consecutive results that rise and fall ask for.
//
// It starts one success short of OK, so the first result decides the state
// whatever rise and fall are, as in keepalived.
type counter struct {
	rise, fall int
	known      bool // a result has been counted
	ok         bool
	// against is the number of consecutive results that contradict ok.
	against int
}

func newCounter(rise, fall int) counter {
	c := counter{}
	c.setLimits(rise, fall)
	c.against = c.rise - 1
	return c
}

// setLimits changes rise and fall and keeps the state.
func (c *counter) setLimits(rise, fall int) {
	c.rise, c.fall = max(rise, 1), max(fall, 1)
	if c.known {
		c.against = min(c.against, c.limit()-1)
	} else {
		c.against = c.rise - 1
	}
}

// limit returns the number of contradicting results that changes the state.
func (c *counter) limit() int {
	if c.ok {
		return c.fall
	}
	return c.rise
}

// add counts a result and says whether it made the state known or changed it.
func (c *counter) add(success bool) (changed bool) {
	changed = !c.known
	c.known = true
	if success == c.ok {
		c.against = 0
		return changed
	}
	c.against++
	if c.against < c.limit() {
		return changed
	}
	c.ok, c.against = success, 0
	return true
}
