package answer

import (
	"bytes"
	_ "embed" // the schema
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrAnswer is wrapped by the error for an answer file that Setup would ignore or
// misunderstand.
var ErrAnswer = errors.New("bad answer file")

const (
	unattendSpace = "urn:schemas-microsoft-com:unattend"
	wcmSpace      = "http://schemas.microsoft.com/WMIConfig/2002/State"
	token         = "31bf3856ad364e35"
)

//go:embed unattend.schema
var schemaText string

var schema = parseSchema(schemaText)

// A rule is what the schema says of one element.
type rule struct {
	name         string
	list         bool
	key, ordered bool
	value        string   // "", "bool", "int", "text"
	limit        int      // of a text
	of           []string // the values there are
	children     []*rule
	indent       int
}

func parseSchema(text string) *rule {
	root := &rule{indent: -1}
	stack := []*rule{root}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if words[0] == "pass" {
			words = words[1:]
		}
		r := &rule{indent: len(line) - len(strings.TrimLeft(line, " "))}
		r.name, r.list = strings.CutSuffix(words[0], "*")
		for i := 1; i < len(words); i++ {
			switch w := words[i]; w {
			case "key":
				r.key = true
			case "ordered":
				r.ordered = true
			case "bool", "int":
				r.value = w
			case "text":
				r.value = w
				i++
				r.limit, _ = strconv.Atoi(words[i])
			default:
				r.of = strings.Split(w, "|")
			}
		}
		for stack[len(stack)-1].indent >= r.indent {
			stack = stack[:len(stack)-1]
		}
		up := stack[len(stack)-1]
		up.children = append(up.children, r)
		stack = append(stack, r)
	}
	return root
}

func (r *rule) child(name string) *rule {
	for _, c := range r.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// A Node is an element of a checked file.
type Node struct {
	Name     string
	Attrs    map[string]string // with "wcm:" before those of that namespace
	Text     string
	Children []*Node
	Line     int
}

// Find returns the elements at a path of names below n, in order.
func (n *Node) Find(path ...string) []*Node {
	if len(path) == 0 {
		return []*Node{n}
	}
	var out []*Node
	for _, c := range n.Children {
		if c.Name == path[0] {
			out = append(out, c.Find(path[1:]...)...)
		}
	}
	return out
}

// Value is the text of the first element at the path, "" if there is none.
func (n *Node) Value(path ...string) string {
	if found := n.Find(path...); len(found) > 0 {
		return found[0].Text
	}
	return ""
}

// maxAnswer bounds an answer file.
const maxAnswer = 1 << 20

// CheckUnattend refuses an autounattend.xml that is not well-formed or not allowed.
func CheckUnattend(data []byte) error {
	_, err := ParseUnattend(data)
	return err
}

// ParseUnattend reads an autounattend.xml and checks it against the schema. The root's
// children are the components of all passes, each with its pass as attribute "pass".
func ParseUnattend(data []byte) (*Node, error) {
	if len(data) > maxAnswer {
		return nil, fmt.Errorf("%w: autounattend.xml has %d bytes, more than %d", ErrAnswer, len(data), maxAnswer)
	}
	root, err := parseXML(data)
	if err != nil {
		return nil, fmt.Errorf("%w: autounattend.xml: %w", ErrAnswer, err)
	}
	c := &unattendCheck{}
	out := c.root(root)
	if err := errors.Join(c.errs...); err != nil {
		return nil, fmt.Errorf("%w: autounattend.xml: %w", ErrAnswer, err)
	}
	return out, nil
}

// maxDepth bounds how deep elements are nested.
const maxDepth = 32

// parseXML reads a document strictly: one root, no directives, no text between
// elements, every element in the namespace of answer files.
func parseXML(data []byte) (*Node, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	d.Strict = true
	root := &Node{}
	stack := []*Node{root}
	for {
		t, err := d.Token()
		line, _ := d.InputPos()
		switch {
		case errors.Is(err, io.EOF) && len(root.Children) == 1:
			return root.Children[0], nil
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%d elements at the top: want one", len(root.Children))
		case err != nil:
			return nil, err
		}
		top := stack[len(stack)-1]
		switch t := t.(type) {
		case xml.StartElement:
			n, err := newNode(t, line)
			if err != nil {
				return nil, err
			}
			if len(stack) > maxDepth {
				return nil, fmt.Errorf("line %d: nested deeper than %d", line, maxDepth)
			}
			top.Children = append(top.Children, n)
			stack = append(stack, n)
		case xml.EndElement:
			if top.Text = strings.TrimSpace(top.Text); top.Text != "" && len(top.Children) > 0 {
				return nil, fmt.Errorf("line %d: text beside the elements of %s", line, top.Name)
			}
			stack = stack[:len(stack)-1]
		case xml.CharData:
			top.Text += string(t)
			if len(stack) == 1 && strings.TrimSpace(string(t)) != "" {
				return nil, fmt.Errorf("line %d: text outside of the document", line)
			}
		case xml.Directive:
			return nil, fmt.Errorf("line %d: a directive: answer files have none", line)
		}
	}
}

func newNode(t xml.StartElement, line int) (*Node, error) {
	if t.Name.Space != unattendSpace {
		return nil, fmt.Errorf("line %d: %s is in namespace %q instead of %q", line, t.Name.Local, t.Name.Space, unattendSpace)
	}
	n := &Node{Name: t.Name.Local, Attrs: map[string]string{}, Line: line}
	for _, a := range t.Attr {
		name := a.Name.Local
		switch a.Name.Space {
		case "":
			if name == "xmlns" {
				continue
			}
		case "xmlns":
			continue
		case wcmSpace:
			name = "wcm:" + name
		default:
			return nil, fmt.Errorf("line %d: attribute %s is in namespace %q", line, name, a.Name.Space)
		}
		if _, twice := n.Attrs[name]; twice {
			return nil, fmt.Errorf("line %d: attribute %s is there twice", line, name)
		}
		n.Attrs[name] = a.Value
	}
	return n, nil
}

// unattendCheck collects what is wrong.
type unattendCheck struct{ errs []error }

func (c *unattendCheck) bad(n *Node, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("line %d: %s", n.Line, fmt.Sprintf(format, args...)))
}

func (c *unattendCheck) root(n *Node) *Node {
	out := &Node{Name: "unattend"}
	if n.Name != "unattend" || len(n.Attrs) > 0 {
		c.bad(n, "the document is %s: want unattend, without attributes", n.Name)
		return out
	}
	last := -1
	for _, s := range n.Children {
		at := -1
		for i, p := range schema.children {
			if p.name == s.Attrs["pass"] {
				at = i
			}
		}
		switch {
		case s.Name != "settings" || len(s.Attrs) != 1:
			c.bad(s, "%s: want settings with a pass", s.Name)
		case at < 0:
			c.bad(s, "no pass %q", s.Attrs["pass"])
		case at <= last:
			c.bad(s, "pass %s is there twice or out of order", s.Attrs["pass"])
		default:
			last = at
			c.components(s, schema.children[at], out)
		}
	}
	return out
}

func (c *unattendCheck) components(settings *Node, pass *rule, out *Node) {
	seen := map[string]bool{}
	for _, n := range settings.Children {
		name := n.Attrs["name"]
		r := pass.child(name)
		switch a := n.Attrs; {
		case n.Name != "component":
			c.bad(n, "%s: want component", n.Name)
		case r == nil:
			c.bad(n, "pass %s has no component %q", pass.name, name)
		case seen[name]:
			c.bad(n, "component %s is there twice in pass %s", name, pass.name)
		case len(a) != 5 || a["processorArchitecture"] != "amd64" && a["processorArchitecture"] != "x86",
			a["publicKeyToken"] != token, a["language"] != "neutral", a["versionScope"] != "nonSxS":
			c.bad(n, "component %s: want processorArchitecture amd64 or x86, publicKeyToken %s, language neutral, versionScope nonSxS", name, token)
		default:
			c.elements(n, r)
			n.Attrs["pass"] = pass.name
			out.Children = append(out.Children, n)
		}
		seen[name] = true
	}
}

// elements checks what is in n.
func (c *unattendCheck) elements(n *Node, r *rule) {
	if len(r.children) == 0 {
		c.value(n, r)
		return
	}
	if n.Text != "" {
		c.bad(n, "%s holds text %q: want elements", n.Name, n.Text)
	}
	seen := map[string]bool{}
	keys := map[string]map[string]bool{}
	for _, e := range n.Children {
		er := r.child(e.Name)
		if er == nil {
			c.bad(e, "%s has no setting %s", n.Name, e.Name)
			continue
		}
		if seen[e.Name] && !er.list {
			c.bad(e, "%s is there twice", e.Name)
		}
		seen[e.Name] = true
		if keys[e.Name] == nil {
			keys[e.Name] = map[string]bool{}
		}
		c.attributes(e, er, keys[e.Name])
		c.elements(e, er)
	}
}

// attributes checks those of an element, and the keys and orders of a list's items.
func (c *unattendCheck) attributes(e *Node, r *rule, keys map[string]bool) {
	want := 0
	if r.list {
		want++
		if e.Attrs["wcm:action"] != "add" {
			c.bad(e, `%s: want wcm:action="add"`, e.Name)
		}
	}
	if r.key {
		want++
		key := e.Attrs["wcm:keyValue"]
		if key == "" || keys[key] {
			c.bad(e, "%s: want a wcm:keyValue of its own", e.Name)
		}
		keys[key] = true
	}
	if len(e.Attrs) != want {
		c.bad(e, "%s has attributes that do not belong there", e.Name)
	}
	if r.ordered {
		if order := e.Value("Order"); order != strconv.Itoa(len(keys)+1) {
			c.bad(e, "%s: Order is %q: want %d, they count from 1", e.Name, order, len(keys)+1)
		}
		keys[strconv.Itoa(len(keys)+1)] = true
	}
}

var numeral = regexp.MustCompile(`^(0|[1-9][0-9]{0,8})$`)

func (c *unattendCheck) value(n *Node, r *rule) {
	if len(n.Children) > 0 {
		c.bad(n, "%s has elements: want a value", n.Name)
		return
	}
	fits := false
	switch r.value {
	case "bool":
		fits = n.Text == "true" || n.Text == "false"
	case "int":
		fits = numeral.MatchString(n.Text)
	case "text":
		fits = n.Text != "" && utf8.RuneCountInString(n.Text) <= r.limit && !strings.ContainsAny(n.Text, "\r\n")
	default:
		for _, v := range r.of {
			fits = fits || n.Text == v
		}
	}
	if !fits { // not the value: it may be a secret
		c.bad(n, "%s holds what it can't: want %s", n.Name, r.describe())
	}
}

func (r *rule) describe() string {
	switch r.value {
	case "bool":
		return "true or false"
	case "int":
		return "a number"
	case "text":
		return fmt.Sprintf("one line of 1 to %d characters", r.limit)
	}
	return "one of " + strings.Join(r.of, ", ")
}
