package answer

import (
	"bytes"
	_ "embed" // templates
	"encoding/xml"
	"fmt"
	"strings"
	"text/template"

	"winvm/hostagent/guest"
)

//go:embed unattend.tmpl
var unattendText string

var unattendTemplate = template.Must(template.New("autounattend.xml").Funcs(template.FuncMap{
	"xml": func(v any) (string, error) {
		var b bytes.Buffer
		err := xml.EscapeText(&b, []byte(fmt.Sprint(v)))
		return b.String(), err
	},
	"back": func(s string) string { return strings.ReplaceAll(s, "/", `\`) },
	"inc":  func(i int) int { return i + 1 },
}).Parse(unattendText))

// AutoUnattend is autounattend.xml.
func AutoUnattend(p Params) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	arch := map[string]string{"x86_64": "amd64", "i686": "x86"}[p.Arch]
	var b bytes.Buffer
	err := unattendTemplate.Execute(&b, map[string]any{
		"P": p, "Arch": arch, "UEFI": p.Profile.Machine.Firmware == guest.FirmwareUEFI,
		"Component": func(name string) string {
			return fmt.Sprintf(`<component name="%s" processorArchitecture="%s" publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS">`, name, arch)
		},
		"Setup": p.Profile.Setup, "MAC": mac(), "Address": guest.GuestIPv4 + "/24", "Computer": computer,
		"Checks": labConfig, "Settings": settings(p.Profile), "Start": startScript(), "Letters": driverLetters,
	})
	if err != nil {
		return nil, fmt.Errorf("autounattend.xml: %w", err)
	}
	out := bytes.ReplaceAll(b.Bytes(), []byte("\n"), []byte("\r\n"))
	if err := CheckUnattend(out); err != nil {
		return nil, err
	}
	return out, nil
}

// labConfig are the values below HKLM\SYSTEM\Setup\LabConfig that turn Windows 11's
// checks off.
var labConfig = []string{"BypassTPMCheck", "BypassSecureBootCheck", "BypassRAMCheck", "BypassCPUCheck", "BypassStorageCheck"}

// driverLetters are the letters that the software medium can have in Windows PE,
// where C: is the system's disk and X: the RAM disk.
var driverLetters = []string{"D", "E", "F"}

// startScript is the command that finds the software medium and runs its script.
func startScript() string {
	script := `%d:\` + Dir + `\` + Script
	return `cmd.exe /d /c for %d in (D E F G A) do @if exist ` + script + ` call ` + script
}

// A setting is a command and what it is for.
type setting struct{ What, Command string }

func regDWORD(key, value string, data int) string {
	if strings.Contains(key, " ") {
		key = `"` + key + `"`
	}
	return fmt.Sprintf(`reg.exe add %s /v %s /t REG_DWORD /d %d /f`, key, value, data)
}

// settings are made before anybody logs on. A throw-away VM without a network, whose
// clock stands in the past, has no use for what they turn off.
func settings(p guest.Profile) []setting {
	const services = `HKLM\SYSTEM\CurrentControlSet\Services\`
	const control = `HKLM\SYSTEM\CurrentControlSet\Control\`
	out := []setting{
		// On all profiles: Server 2025's own rule leaves out Public, which the private
		// link is.
		{"the SSH server may be reached", `netsh.exe advfirewall firewall add rule name="` + ruleName +
			fmt.Sprintf(`" dir=in action=allow protocol=TCP localport=%d profile=any`, p.SSH.Port)},
		{"no time from the network", regDWORD(services+`W32Time`, "Start", 4)},
		{"no automatic updates", regDWORD(`HKLM\SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate\AU`, "NoAutoUpdate", 1)},
		{"no update service", regDWORD(services+`wuauserv`, "Start", 4)},
		{"Defender does not scan what is opened", regDWORD(`HKLM\SOFTWARE\Policies\Microsoft\Windows Defender\Real-Time Protection`, "DisableRealtimeMonitoring", 1)},
		{"no sleep", `powercfg.exe /change standby-timeout-ac 0`},
		{"the screen stays on", `powercfg.exe /change monitor-timeout-ac 0`},
		{"no hibernation", `powercfg.exe /hibernate off`},
		{"no half hibernation at shutdown", regDWORD(control+`Session Manager\Power`, "HiberbootEnabled", 0)},
		{"a crash stays on the screen", regDWORD(control+`CrashControl`, "AutoReboot", 0)},
		{"paths longer than 260 characters", regDWORD(control+`FileSystem`, "LongPathsEnabled", 1)},
		{"drives are not disconnected", regDWORD(services+`LanmanWorkstation\Parameters`, "KeepConn", 65535)},
		{"nothing is believed of a share's directories", regDWORD(services+`LanmanWorkstation\Parameters`, "DirectoryCacheLifetime", 0)},
		{"nor of its files", regDWORD(services+`LanmanWorkstation\Parameters`, "FileInfoCacheLifetime", 0)},
		{"nor of what was not there", regDWORD(services+`LanmanWorkstation\Parameters`, "FileNotFoundCacheLifetime", 0)},
	}
	if p.Setup.Kind == "client" {
		out = append(out, setting{"no account on the network is asked for", regDWORD(`HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\OOBE`, "BypassNRO", 1)})
	}
	return out
}
