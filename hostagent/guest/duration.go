package guest

import (
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// A Duration is written like 2.5s or 1h30m.
type Duration struct{ time.Duration }

var _ yaml.NodeUnmarshaler = (*Duration)(nil)

// UnmarshalYAML reads it. It is given the node, so that an error has a line.
func (d *Duration) UnmarshalYAML(n ast.Node) error {
	var err error
	if d.Duration, err = time.ParseDuration(n.GetToken().Value); err != nil {
		return &yaml.SyntaxError{Message: "want a duration like 2.5s or 1h30m", Token: n.GetToken()}
	}
	return nil
}

// MarshalText writes it as it is read.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
