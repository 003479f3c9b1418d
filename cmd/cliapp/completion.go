package cliapp

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// Completion makes the command that prints the completion script of a program, which has EnableBashCompletion.
func Completion(program string) *cli.Command {
	return &cli.Command{
		Name:        "completion",
		Usage:       "print a shell's completion script",
		ArgsUsage:   "bash|zsh",
		Description: "To use it: source <(" + program + " completion bash)",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return fmt.Errorf("completion takes one argument, bash or zsh; it was given %d (flags stand before it)", c.NArg())
			}
			script, ok := scripts[c.Args().First()]
			if !ok {
				return fmt.Errorf("no completion for %q: there is bash and zsh", c.Args().First())
			}
			_, err := fmt.Fprint(c.App.Writer, strings.ReplaceAll(script, "PROGRAM", program))
			return err
		},
	}
}

// scripts ask PROGRAM itself, with urfave/cli's hidden flag.
var scripts = map[string]string{
	"bash": `_PROGRAM() {
	local cur words
	cur=${COMP_WORDS[COMP_CWORD]}
	words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	case $cur in -*) words+=("$cur") ;; esac
	mapfile -t COMPREPLY < <(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur")
}
complete -o default -F _PROGRAM PROGRAM
`,
	"zsh": `#compdef PROGRAM
_PROGRAM() {
	local -a opts
	opts=("${(@f)$(${words[@]:0:#words[@]-1} --generate-bash-completion 2>/dev/null)}")
	_describe values opts || _files
}
compdef _PROGRAM PROGRAM
`,
}
