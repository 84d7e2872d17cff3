package config

// Supported lists the keywords that have an effect, by block.
func Supported() map[string][]string { return byBlock(supported) }

// SupportedVRRP lists those that have one only where an instance speaks VRRP.
func SupportedVRRP() map[string][]string { return byBlock(supportedVRRP) }

func byBlock(table map[context]map[string]bool) map[string][]string {
	out := map[string][]string{}
	for ctx, keywords := range table {
		for k := range keywords {
			out[string(ctx)] = append(out[string(ctx)], k)
		}
	}
	return out
}
