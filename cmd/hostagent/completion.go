package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

var completionCommand = &cli.Command{
	Name:        "completion",
	Usage:       "print a shell's completion script",
	ArgsUsage:   "bash|zsh",
	Description: `To use it: source <(hostagent completion bash)`,
	Action: func(c *cli.Context) error {
		shell, err := oneArg(c, "bash or zsh")
		if err != nil {
			return err
		}
		script, ok := completions[shell]
		if !ok {
			return fmt.Errorf("no completion for %q: there is bash and zsh", shell)
		}
		_, err = fmt.Fprint(c.App.Writer, script)
		return err
	},
}

// completions ask hostagent itself, with urfave/cli's hidden flag.
var completions = map[string]string{
	"bash": `_hostagent() {
	local cur words
	cur=${COMP_WORDS[COMP_CWORD]}
	words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	case $cur in -*) words+=("$cur") ;; esac
	mapfile -t COMPREPLY < <(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur")
}
complete -o default -F _hostagent hostagent
`,
	"zsh": `#compdef hostagent
_hostagent() {
	local -a opts
	opts=("${(@f)$(${words[@]:0:#words[@]-1} --generate-bash-completion 2>/dev/null)}")
	_describe values opts || _files
}
compdef _hostagent hostagent
`,
}
