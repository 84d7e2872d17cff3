package config

// Supported lists the keywords that have an effect, by block.
func Supported() map[string][]string {
	out := map[string][]string{}
	for ctx, keywords := range supported {
		for k := range keywords {
			out[string(ctx)] = append(out[string(ctx)], k)
		}
	}
	return out
}
