package answer

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"winvm/hostagent/guest"
)

var update = flag.Bool("update", false, "write the golden files anew")

const testKey = "BCDFG-HJKMN-PQRTV-WXY23-46789"

func params(t *testing.T, name string) Params {
	t.Helper()
	p, err := guest.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	out := Params{Profile: p, Arch: p.Setup.Architectures[0], ImageIndex: 1, Password: "Wv1.golden-password"}
	if p.Setup.NeedsKey {
		out.ProductKey = testKey
	}
	return out
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what is made; look at the difference that `go test -update` gives", file)
	}
}

func write(t *testing.T, p Params) []byte {
	t.Helper()
	f := AutoUnattend
	if p.Profile.Setup.Answer == guest.WinntSIF {
		f = WinntSIF
	}
	b, err := f(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := f(p)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("%s: not the same twice (%v)", p.Profile.Name, err)
	}
	return b
}

func TestGolden(t *testing.T) {
	for _, name := range guest.Names() {
		p, err := guest.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if p.Setup == nil {
			continue
		}
		golden(t, name+"."+p.Setup.Answer, write(t, params(t, name)))
		script, err := FirstLogon(p)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "first-logon."+p.Setup.SSHD+".cmd", script)
		golden(t, "sshd_config."+p.Setup.SSHD, ServerConfig(p))
		golden(t, "fstab", CygwinFstab(append(p.Drives, guest.Drive{Letter: "P", Share: guest.ShareStore, Path: "abc-tools/bin"})))
	}
	golden(t, "winvm.cmd", FloppyStarter())
	p := params(t, "windows-10")
	p.ProductKey, p.ImageIndex, p.Drivers = testKey, 6, []string{"winvm/drivers/viostor", "winvm/drivers/NetKVM"}
	p.Arch = "i686"
	golden(t, "windows-10.drivers.autounattend.xml", write(t, p))
}

// What the issue asks of every modern profile is there.
func TestSettings(t *testing.T) {
	for _, name := range []string{"windows-10", "windows-11", "windows-server-2019", "windows-server-2022", "windows-server-2025"} {
		p := params(t, name)
		root, err := ParseUnattend(write(t, p))
		if err != nil {
			t.Fatal(err)
		}
		var commands []string
		for _, c := range root.Find("component") {
			for _, n := range c.Find("RunSynchronous", "RunSynchronousCommand", "Path") {
				commands = append(commands, n.Text)
			}
		}
		all := strings.Join(commands, "\n")
		for _, part := range []string{
			"localport=22 profile=any", `W32Time /v Start /t REG_DWORD /d 4`, "NoAutoUpdate", "DisableRealtimeMonitoring",
			"standby-timeout-ac 0", "hibernate off", `CrashControl /v AutoReboot /t REG_DWORD /d 0`, "LongPathsEnabled", "KeepConn",
		} {
			if !strings.Contains(all, part) {
				t.Errorf("%s: no command has %s", name, part)
			}
		}
		if got := strings.Contains(all, "BypassTPMCheck"); got != (name == "windows-11") {
			t.Errorf("%s: the TPM's check is bypassed: %v", name, got)
		}
		efi := 0
		for _, c := range root.Find("component") {
			for _, n := range c.Find("DiskConfiguration", "Disk", "CreatePartitions", "CreatePartition", "Type") {
				if n.Text == "EFI" {
					efi++
				}
			}
		}
		if (efi == 1) != (p.Profile.Machine.Firmware == guest.FirmwareUEFI) {
			t.Errorf("%s: %d EFI partitions with firmware %s", name, efi, p.Profile.Machine.Firmware)
		}
	}
}

func TestKeys(t *testing.T) {
	for key, good := range map[string]bool{
		testKey: true, "NBCDF-HJKMP-PQRTV-WXY23-46789": true,
		"": false, "BCDFG-HJKMP-PQRTV-WXY23": false, "bcdfg-hjkmp-pqrtv-wxy23-46789": false,
		"BCDFG-HJKMP-PQRTV-WXY23-46780": false, "BCDFGHJKMPPQRTVWXY2346789": false, testKey + "\n": false, "AAAAA-AAAAA-AAAAA-AAAAA-AAAAA": false,
	} {
		err := CheckKey(key)
		if (err == nil) != good || err != nil && (!errors.Is(err, ErrKey) || key != "" && strings.Contains(err.Error(), key)) {
			t.Errorf("%q: got %v", key, err)
		}
	}
}

func TestParamsRefused(t *testing.T) {
	for name, change := range map[string]func(*Params){
		"key":          func(p *Params) { p.ProductKey = "x" },
		"architecture": func(p *Params) { p.Arch = "arm64" },
		"password":     func(p *Params) { p.Password = `a"b</Value>` },
		"no password":  func(p *Params) { p.Password = "" },
		"image":        func(p *Params) { p.ImageIndex = 0 },
		"driver":       func(p *Params) { p.Drivers = []string{"../x"} },
		"no setup":     func(p *Params) { p.Profile.Setup = nil },
	} {
		p := params(t, "windows-11")
		change(&p)
		if b, err := AutoUnattend(p); err == nil {
			t.Errorf("%s: taken: %s", name, b)
		}
	}
	p := params(t, "windows-xp")
	p.ProductKey = ""
	if _, err := WinntSIF(p); !errors.Is(err, ErrKey) {
		t.Errorf("no key: got %v", err)
	}
}

func TestUnattendRefused(t *testing.T) {
	good := string(write(t, params(t, "windows-11")))
	for name, c := range map[string]struct{ old, new, says string }{
		"cut off":          {"</unattend>", "", "unexpected EOF"},
		"not closed":       {"</AutoLogon>", "", "AutoLogon"},
		"ampersand":        {"<TimeZone>UTC", "<TimeZone>A & B", "invalid character entity"},
		"entity":           {"<TimeZone>UTC", "<TimeZone>&nbsp;", "invalid character entity"},
		"attribute":        {`pass="windowsPE"`, `pass=windowsPE`, "unquoted"},
		"directive":        {"<unattend ", "<!DOCTYPE x><unattend ", "directive"},
		"two roots":        {"</unattend>", "</unattend><unattend xmlns='urn:schemas-microsoft-com:unattend'/>", "2 elements at the top"},
		"namespace":        {"urn:schemas-microsoft-com:unattend", "urn:x", "namespace"},
		"wcm undeclared":   {` xmlns:wcm="http://schemas.microsoft.com/WMIConfig/2002/State"`, "", "namespace"},
		"pass":             {`pass="specialize"`, `pass="specialise"`, `no pass "specialise"`},
		"pass twice":       {`pass="specialize"`, `pass="windowsPE"`, "twice or out of order"},
		"component":        {`"Microsoft-Windows-Deployment"`, `"Microsoft-Windows-Deploy"`, `has no component "Microsoft-Windows-Deploy"`},
		"other pass's":     {`"Microsoft-Windows-TCPIP"`, `"Microsoft-Windows-Setup"`, "pass specialize has no component"},
		"component twice":  {`"Microsoft-Windows-TCPIP"`, `"Microsoft-Windows-Deployment"`, "twice"},
		"architecture":     {`processorArchitecture="amd64"`, `processorArchitecture="x64"`, "processorArchitecture"},
		"token":            {token, "31bf3856ad364e36", "publicKeyToken"},
		"setting":          {"<TimeZone>UTC</TimeZone>", "<Timezone>UTC</Timezone>", "no setting Timezone"},
		"setting twice":    {"<TimeZone>UTC</TimeZone>", "<TimeZone>UTC</TimeZone><TimeZone>UTC</TimeZone>", "TimeZone is there twice"},
		"no action":        {`<Disk wcm:action="add">`, "<Disk>", `want wcm:action="add"`},
		"attribute added":  {`<Disk wcm:action="add">`, `<Disk wcm:action="add" x="1">`, "do not belong"},
		"order":            {"<Order>2</Order>", "<Order>3</Order>", "they count from 1"},
		"no key":           {` wcm:keyValue="1"`, "", "keyValue"},
		"bool":             {"<WillWipeDisk>true", "<WillWipeDisk>yes", "want true or false"},
		"number":           {"<Size>260", "<Size>0x260", "want a number"},
		"one of":           {"<Format>FAT32", "<Format>fat", "one of FAT32, NTFS"},
		"long":             {"<ComputerName>WINVM", "<ComputerName>WINVM-WINVM-WINVM", "1 to 15 characters"},
		"empty":            {"<ComputerName>WINVM", "<ComputerName>", "1 to 15 characters"},
		"elements":         {"<ComputerName>WINVM", "<ComputerName><x/>", "want a value"},
		"text":             {"<DiskConfiguration>", "<DiskConfiguration>x", "text beside"},
		"deep":             {"<TimeZone>UTC", strings.Repeat("<a>", 40) + "<TimeZone>UTC", "nested deeper"},
		"document":         {"<unattend ", "<unattended ", "unattend"},
		"no settings":      {`<settings pass="oobeSystem">`, `<configuration pass="oobeSystem">`, "configuration"},
		"secret not shown": {"<Value>Wv1.golden-password", "<Value>" + strings.Repeat("s3cret", 30), "holds what it can't"},
	} {
		if !strings.Contains(good, c.old) {
			t.Errorf("%s: nothing to replace", name)
			continue
		}
		err := CheckUnattend([]byte(strings.Replace(good, c.old, c.new, 1)))
		if !errors.Is(err, ErrAnswer) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
	if err := CheckUnattend(append([]byte(good), 0xff)); !errors.Is(err, ErrAnswer) {
		t.Errorf("not UTF-8: got %v", err)
	}
	if err := CheckUnattend(make([]byte, maxAnswer+1)); !errors.Is(err, ErrAnswer) {
		t.Errorf("too large: got %v", err)
	}
}

func TestSIFRefused(t *testing.T) {
	good := string(write(t, params(t, "windows-2003")))
	for name, c := range map[string]struct{ old, new, says string }{
		"section":        {"[Networking]", "[Network]", "no section [Network]"},
		"section gone":   {"[WindowsFirewall.sshd]\r\n", "", "section [WindowsFirewall.sshd] is missing"},
		"section twice":  {"[Networking]", "[Unattended]", "twice"},
		"key":            {"OemSkipEula", "OemSkipEULA", "no key OemSkipEULA"},
		"key gone":       {"OemSkipEula = Yes\r\n", "", "lacks OemSkipEula"},
		"key twice":      {"DHCP = No", "DHCP = No\r\nDHCP = Yes", "DHCP is there twice"},
		"value":          {"DHCP = No", "DHCP = Maybe", "one of Yes, No"},
		"number":         {"TimeZone = 90", "TimeZone = UTC", "a number"},
		"long":           {"ComputerName = WINVM", "ComputerName = WINVM-WINVM-WINVM", "15"},
		"quotation mark": {`"winvm sshd"`, `"winvm sshd`, "want a line like"},
		"blank":          {`"winvm sshd"`, `winvm sshd`, "want a line like"},
		"no section":     {"[Data]\r\n", "", "in a section"},
		"line ends":      {"\r\n", "\n", "CR LF"},
		"not ASCII":      {"OrgName = \"winvm\"", "OrgName = \"wïnvm\"", "printable ASCII"},
	} {
		if !strings.Contains(good, c.old) {
			t.Errorf("%s: nothing to replace", name)
			continue
		}
		err := CheckSIF([]byte(strings.Replace(good, c.old, c.new, 1)))
		if !errors.Is(err, ErrAnswer) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
}

// The script is a batch file: ASCII, CR LF, no line too long for cmd.exe.
func TestScript(t *testing.T) {
	for _, name := range []string{"windows-11", "windows-xp"} {
		p, err := guest.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := FirstLogon(p)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(b), "\r\n") {
			if len(line) > 1000 || strings.ContainsAny(line, "\r\n") || strings.Contains(line, "<<") || strings.Contains(line, "no value") {
				t.Errorf("%s: line %d: %q", name, i+1, line)
			}
		}
	}
}

func FuzzParseUnattend(f *testing.F) {
	for _, name := range []string{"windows-10", "windows-11"} {
		b, err := os.ReadFile(filepath.Join("testdata", name+".autounattend.xml"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = ParseUnattend(b) })
}

func FuzzParseSIF(f *testing.F) {
	b, err := os.ReadFile(filepath.Join("testdata", "windows-xp.winnt.sif"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = ParseSIF(b) })
}
