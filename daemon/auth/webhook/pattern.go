package webhook

// matchRef reports whether a pattern is that of a ref: a * is anything but a slash, a ** anything at all.
func matchRef(pattern, ref string) bool {
	// match[i] says whether what was looked at of the pattern is that of ref[:i].
	match := make([]bool, len(ref)+1)
	match[0] = true
	for p := 0; p < len(pattern); p++ {
		if pattern[p] != '*' {
			for i := len(ref); i > 0; i-- {
				match[i] = match[i-1] && ref[i-1] == pattern[p]
			}
			match[0] = false
			continue
		}
		deep := false
		for p+1 < len(pattern) && pattern[p+1] == '*' {
			p, deep = p+1, true
		}
		for i := 1; i <= len(ref); i++ {
			match[i] = match[i] || match[i-1] && (deep || ref[i-1] != '/')
		}
	}
	return match[len(ref)]
}
