package inspect

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// A Filter chooses events by an expression:
//
//	op==read && ms>5
//	(stream==fs/xchg || layer==exec) && !kind==request
//	problem            a field alone: it isn't empty, and not 0
//
// with ==, !=, <, <=, >, >=, ~ (contains), &&, ||, ! and brackets. Two numbers are compared
// as such, everything else as text. A value with blanks or operators in it stands in double
// quotes. A field that an event doesn't have equals nothing, and nothing is more or less
// than it. The fields are those of [Fields], and those of requests and responses by
// their names (handle, name, ...).
type Filter struct {
	root node
	text string
}

// Fields lists the fields that every event may have.
func Fields() []string { return slices.Clone(fieldNames) }

var fieldNames = []string{
	"bytes", "epoch", "errno", "from", "kind", "layer", "link", "ms", "op", "problem", "seq", "share",
	"slot", "stream", "t", "tag", "text",
}

// node is a part of an expression.
type node interface{ match(e *Event) bool }

type (
	andNode  struct{ a, b node }
	orNode   struct{ a, b node }
	notNode  struct{ a node }
	testNode struct{ field, op, value string }
)

func (n andNode) match(e *Event) bool { return n.a.match(e) && n.b.match(e) }
func (n orNode) match(e *Event) bool  { return n.a.match(e) || n.b.match(e) }
func (n notNode) match(e *Event) bool { return !n.a.match(e) }

func (n testNode) match(e *Event) bool {
	got, ok := field(e, n.field)
	switch n.op {
	case "":
		return ok && got != "" && got != "0" && got != "false"
	case "!=":
		return !ok || !equal(got, n.value)
	case "==":
		return ok && equal(got, n.value)
	case "~":
		return ok && strings.Contains(got, n.value)
	}
	if !ok {
		return false
	}
	c := compare(got, n.value)
	switch n.op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	default:
		return c >= 0
	}
}

func equal(a, b string) bool { return a == b || compare(a, b) == 0 }

func compare(a, b string) int {
	x, errA := strconv.ParseFloat(a, 64)
	y, errB := strconv.ParseFloat(b, 64)
	if errA != nil || errB != nil {
		return strings.Compare(a, b)
	}
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	default:
		return 0
	}
}

// field returns a field as text.
func field(e *Event, name string) (s string, ok bool) {
	switch name {
	case "bytes":
		return strconv.Itoa(e.Bytes), true
	case "epoch":
		return fmt.Sprintf("%08x", e.Epoch), e.Epoch != 0
	case "errno":
		return e.Errno, e.Kind == KindResponse
	case "from":
		return e.From.String(), e.From != 0
	case "kind":
		return e.Kind, true
	case "layer":
		return e.Layer, true
	case "link":
		return strconv.FormatUint(uint64(e.Link), 10), true
	case "ms":
		return strconv.FormatFloat(ms(e.Latency), 'f', -1, 64), e.Kind == KindResponse && e.Latency >= 0
	case "op":
		return e.Op, e.Op != ""
	case "problem":
		return e.Problem, e.Problem != ""
	case "seq":
		return strconv.FormatUint(uint64(e.Seq), 10), e.Epoch != 0
	case "share":
		share, is := strings.CutPrefix(e.Stream, "fs/")
		return share, is
	case "slot":
		return strconv.FormatBool(e.Slot), e.Op != ""
	case "stream":
		return e.streamText(), e.StreamID != 0
	case "t":
		return strconv.FormatFloat(e.Since.Seconds(), 'f', -1, 64), true
	case "tag":
		return strconv.FormatUint(uint64(e.Tag), 10), e.Op != ""
	case "text":
		return e.Text, e.Text != ""
	}
	for _, f := range e.Fields {
		if f.Name == name {
			return fmt.Sprint(f.Value), true
		}
	}
	return "", false
}

// ErrFilter says that an expression can't be understood.
var ErrFilter = errors.New("bad filter")

// maxNesting bounds how deep brackets may stand.
const maxNesting = 100

// NewFilter parses an expression; "" chooses everything.
func NewFilter(text string) (*Filter, error) {
	f := &Filter{text: text}
	if strings.TrimSpace(text) == "" {
		return f, nil
	}
	p := parser{text: text}
	p.next()
	f.root = p.or(0)
	if p.err == nil && p.token != "" {
		p.fail("%q is not expected", p.token)
	}
	if p.err != nil {
		return nil, fmt.Errorf("%w %q: %w; the fields are %s, and those that requests and responses show",
			ErrFilter, text, p.err, strings.Join(fieldNames, ", "))
	}
	return f, nil
}

// Match reports whether the filter chooses an event.
func (f *Filter) Match(e *Event) bool { return f == nil || f.root == nil || f.root.match(e) }

func (f *Filter) String() string { return f.text }

type parser struct {
	text   string
	token  string
	quoted bool
	err    error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
	p.text, p.token = "", ""
}

const operators = "()!=<>&|~"

// next takes the next token.
func (p *parser) next() {
	p.text = strings.TrimLeftFunc(p.text, unicode.IsSpace)
	p.token, p.quoted = "", false
	if p.text == "" {
		return
	}
	for _, op := range []string{"==", "!=", "<=", ">=", "&&", "||"} {
		if strings.HasPrefix(p.text, op) {
			p.token, p.text = op, p.text[2:]
			return
		}
	}
	if p.text[0] == '"' {
		s, err := strconv.QuotedPrefix(p.text)
		if err != nil {
			p.fail("a quote is not closed")
			return
		}
		p.text = p.text[len(s):]
		p.token, _ = strconv.Unquote(s)
		p.quoted = true
		return
	}
	if strings.IndexByte(operators, p.text[0]) >= 0 {
		p.token, p.text = p.text[:1], p.text[1:]
		return
	}
	n := strings.IndexFunc(p.text, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(operators+`"`, r) })
	if n < 0 {
		n = len(p.text)
	}
	p.token, p.text = p.text[:n], p.text[n:]
}

func (p *parser) is(op string) bool { return !p.quoted && p.token == op && p.err == nil }

func (p *parser) or(depth int) node {
	n := p.and(depth)
	for p.is("||") {
		p.next()
		n = orNode{n, p.and(depth)}
	}
	return n
}

func (p *parser) and(depth int) node {
	n := p.not(depth)
	for p.is("&&") {
		p.next()
		n = andNode{n, p.not(depth)}
	}
	return n
}

func (p *parser) not(depth int) node {
	if depth > maxNesting {
		p.fail("too many brackets")
	}
	switch {
	case p.is("!"):
		p.next()
		return notNode{p.not(depth + 1)}
	case p.is("("):
		p.next()
		n := p.or(depth + 1)
		if !p.is(")") {
			p.fail("a bracket is not closed")
		}
		p.next()
		return n
	default:
		return p.test()
	}
}

func (p *parser) word(what string) string {
	w := p.token
	if !p.quoted && (w == "" || strings.Contains(operators, w[:1])) {
		p.fail("%s is missing before %q", what, w+p.text)
	}
	p.next()
	return w
}

func (p *parser) test() node {
	t := testNode{field: p.word("a field")}
	switch {
	case p.quoted:
		p.fail("%q where an operator is expected", p.token)
	case p.token == "=":
		p.fail("write == to compare")
	case slices.Contains([]string{"==", "!=", "<", "<=", ">", ">=", "~"}, p.token):
		t.op = p.token
		p.next()
		t.value = p.word("a value")
	}
	return t
}
