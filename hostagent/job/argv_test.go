package job

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// splitName splits off the program's name, for which no parser knows escapes.
func splitName(line string) (name, rest string) {
	if after, ok := strings.CutPrefix(line, `"`); ok {
		name, rest, _ = strings.Cut(after, `"`)
		return name, rest
	}
	if i := strings.IndexFunc(line, func(r rune) bool { return r <= ' ' }); i >= 0 {
		return line[:i], line[i:]
	}
	return line, ""
}

// toArgv is CommandLineToArgvW as Wine has it (dlls/shcore/main.c), byte by byte:
// three quotation marks in a row make one.
func toArgv(line string) []string {
	name, rest := splitName(line)
	args := []string{name}
	if rest = strings.TrimLeft(rest, " \t"); rest == "" {
		return args
	}
	var arg []byte
	quotes, slashes := 0, 0
	for i := 0; i < len(rest); {
		c := rest[i]
		switch {
		case (c == ' ' || c == '\t') && quotes == 0:
			args = append(args, string(arg))
			arg, slashes = arg[:0], 0
			rest, i = strings.TrimLeft(rest[i:], " \t"), 0
			if rest == "" {
				return args
			}
		case c == '\\':
			arg = append(arg, c)
			slashes++
			i++
		case c == '"':
			if slashes%2 == 0 { // half of the backslashes, and a quotation mark that counts
				arg = arg[:len(arg)-slashes/2]
				quotes++
			} else { // half of them, and a literal one
				arg = append(arg[:len(arg)-slashes/2-1], '"')
			}
			slashes = 0
			i++
			for i < len(rest) && rest[i] == '"' {
				if quotes++; quotes == 3 {
					arg, quotes = append(arg, '"'), 0
				}
				i++
			}
			if quotes == 2 {
				quotes = 0
			}
		default:
			arg = append(arg, c)
			slashes = 0
			i++
		}
	}
	return append(args, string(arg))
}

// toArgvUCRT is parse_command_line of the Universal C Runtime: two quotation marks
// within quotes make one, and the quotes go on.
func toArgvUCRT(line string) []string {
	name, rest := splitName(line)
	args := []string{name}
	for {
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			return args
		}
		var arg []byte
		inQuotes := false
		for rest != "" {
			n := len(rest) - len(strings.TrimLeft(rest, `\`))
			rest = rest[n:]
			literal := true
			if strings.HasPrefix(rest, `"`) {
				if n%2 == 0 {
					if inQuotes && strings.HasPrefix(rest, `""`) {
						rest = rest[1:]
					} else {
						literal, inQuotes = false, !inQuotes
					}
				}
				n /= 2
			}
			arg = append(arg, strings.Repeat(`\`, n)...)
			if rest == "" || !inQuotes && literal && strings.IndexByte(" \t", rest[0]) >= 0 {
				break
			}
			if literal {
				arg = append(arg, rest[0])
			}
			rest = rest[1:]
		}
		args = append(args, string(arg))
	}
}

var parsers = map[string]func(string) []string{"CommandLineToArgvW": toArgv, "C runtime": toArgvUCRT}

// The parsers are tested with Microsoft's own examples: "Parsing C command-line
// arguments" and CommandLineToArgvW on learn.microsoft.com.
func TestParsers(t *testing.T) {
	for line, want := range map[string][]string{
		`p "a b c" d e`:     {"p", "a b c", "d", "e"},
		`p "ab\"c" "\\" d`:  {"p", `ab"c`, `\`, "d"},
		`p a\\\b d"e f"g h`: {"p", `a\\\b`, "de fg", "h"},
		`p a\\\"b c d`:      {"p", `a\"b`, "c", "d"},
		`p a\\\\"b c" d e`:  {"p", `a\\b c`, "d", "e"},
		`"a b\c" x`:         {`a b\c`, "x"},
		`p "" x`:            {"p", "", "x"},
		`p`:                 {"p"},
	} {
		for name, parse := range parsers {
			if got := parse(line); !slices.Equal(got, want) {
				t.Errorf("%s: %s: got %q, want %q", name, line, got, want)
			}
		}
	}
}

func checkRoundTrip(t *testing.T, args []string) {
	t.Helper()
	line, err := CommandLine(args)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	for name, parse := range parsers {
		if got := parse(line); !slices.Equal(got, args) {
			t.Fatalf("%s splits %s into %q, want %q", name, line, got, args)
		}
	}
}

func TestCommandLineRoundTrip(t *testing.T) {
	alphabet := []string{"a", "b", " ", "\t", `"`, `\`, `\`, "\n", "\v", "é", "\U0001f600", "%", "^", "/c"}
	r := rand.New(rand.NewPCG(1, 2))
	word := func(letters []string) string {
		var b strings.Builder
		for range r.IntN(9) {
			b.WriteString(letters[r.IntN(len(letters))])
		}
		return b.String()
	}
	for range 50_000 {
		args := []string{"p" + strings.ReplaceAll(word(alphabet), `"`, "")}
		for range r.IntN(5) {
			args = append(args, word(alphabet))
		}
		checkRoundTrip(t, args)
	}
}

func FuzzCommandLine(f *testing.F) {
	for _, s := range []string{"p", "p\x00", "a b\x00\"\x00\\\x00c\\\\\"", "p\x00a\\\\ b\\", "cmd\x00/c\x00x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, joined string) {
		args := strings.Split(joined, "\x00")
		line, err := CommandLine(args)
		switch {
		case errors.Is(err, ErrInvalid):
			return
		case err != nil:
			t.Fatal(err)
		case utf16Len(line) >= MaxCommandLine:
			t.Fatalf("a line of %d units", utf16Len(line))
		case isCmd(args[0]):
			return // cmd.exe has rules of its own
		}
		checkRoundTrip(t, args)
	})
}
