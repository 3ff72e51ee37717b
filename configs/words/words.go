// Package words has the rules for words that people write into settings and configuration.
package words

import (
	"fmt"
	"strings"
)

// ValidHost is RFC 1123's rule for one label of a host name.
func ValidHost(s string) bool {
	return len(s) >= 1 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-')
	}) < 0
}

// ValidLogin is what useradd takes.
func ValidLogin(s string) bool {
	return len(s) >= 1 && len(s) <= 32 && s[0] >= 'a' && s[0] <= 'z' && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) < 0
}

// DidYouMean is the end of a sentence about an unknown word: the known one that is nearest, else the words otherwise.
func DidYouMean(word string, known []string, otherwise string) string {
	best, distance := "", 2*min(4, len(word))
	if word != "" && len(word) <= 64 {
		for _, k := range known {
			d := 2 * levenshtein(word, k)
			if k[0] == word[0] {
				d-- // of two equally near words, people mean the one that begins so
			}
			if d < distance {
				best, distance = k, d
			}
		}
	}
	if best == "" {
		return "; " + otherwise
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
