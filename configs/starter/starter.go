// Package starter is the configuration that an appliance begins with: a small repository that its owner clones,
// changes and pushes back.
package starter

import (
	"embed"
	"io/fs"
)

//go:embed tree
var tree embed.FS

// Files is the tree of the first commit.
func Files() fs.FS {
	sub, err := fs.Sub(tree, "tree")
	if err != nil {
		return tree // cannot happen: tree is embedded
	}
	return sub
}
