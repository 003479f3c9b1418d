package qemu

import (
	"fmt"
	"strings"
)

// Args is QEMU's command line without the binary itself. It is meaningful for a
// description that [Machine.Validate] accepts.
//
// The order of the devices is the order of their PCI addresses: it is part of what
// a saved state depends on, and must not be changed lightly.
func (m Machine) Args() []string {
	m = m.WithDefaults()
	var a argv
	a.add("-name", escape(m.Name))
	a.add("-no-user-config", "-nodefaults")
	display := m.Display
	if display == "" {
		display = "none"
	}
	a.add("-display", display)
	if !m.NoSandbox {
		a.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	}
	m.addBoard(&a)
	m.addBoot(&a)
	if m.QMPFD != 0 {
		a.addf("-chardev", "socket,id=qmp,fd=%d", m.QMPFD)
		a.add("-mon", "chardev=qmp,mode=control")
	}
	if m.ConsoleFD != 0 {
		a.addf("-chardev", "socket,id=console,fd=%d", m.ConsoleFD)
		a.add("-serial", "chardev:console")
	}
	m.addDevices(&a)
	a.add("-S")
	if m.Incoming {
		a.add("-incoming", "defer")
	}
	return a
}

// Command is the binary and its arguments as a person would type them, for logs
// and error messages.
func (m Machine) Command() string {
	m = m.WithDefaults()
	words := append([]string{m.Binary}, m.Args()...)
	for i, w := range words {
		if strings.ContainsAny(w, " \t\n'\"$&;<>()|*?[]#~`\\") || w == "" {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

func (m Machine) addBoard(a *argv) {
	board := m.Type + ",dump-guest-core=off,vmport=off"
	if m.Memory.File != "" {
		board += ",memory-backend=mem"
	}
	if m.Lane != nil {
		board += ",nvdimm=on"
	}
	if f := m.Firmware; f != nil {
		a.add("-blockdev", "driver=raw,node-name=firmware,read-only=on,file.driver=file,file.filename="+escape(f.Code))
		a.add("-blockdev", fmt.Sprintf("driver=%s,node-name=variables,read-only=off,file.driver=file,file.filename=%s", f.VarsFormat, escape(f.Vars)))
		board += ",pflash0=firmware,pflash1=variables"
	}
	a.add("-machine", board)
	accel := string(m.Accel)
	if m.Accel == TCG {
		// One thread for one CPU: with thread=multi 1-2 % of cold boots hung.
		accel += map[bool]string{true: ",thread=single", false: ",thread=multi"}[m.SMP == 1]
		if m.TranslationMiB > 0 {
			accel += fmt.Sprintf(",tb-size=%d", m.TranslationMiB)
		}
	}
	a.add("-accel", accel)
	a.add("-cpu", m.CPU)
	a.addf("-smp", "%d", m.SMP)
	if m.Lane == nil {
		a.addf("-m", "%dM", m.Memory.MiB)
	} else {
		a.addf("-m", "%dM,slots=1,maxmem=%dM", m.Memory.MiB, m.Memory.MiB+m.Lane.MiB)
	}
	if m.Memory.File != "" {
		mem := fmt.Sprintf("memory-backend-file,id=mem,size=%dM,mem-path=%s,share=%s",
			m.Memory.MiB, escape(m.Memory.File), onOff(m.Memory.Shared))
		if m.Memory.ReadOnlyFile {
			mem += ",readonly=on,rom=off"
		}
		a.add("-object", mem)
	}
	a.add("-rtc", "base="+m.RTCBase+",clock=vm")
	reboot := "shutdown"
	if m.AllowReboot {
		reboot = "reset"
	}
	a.add("-action", "reboot="+reboot+",shutdown=poweroff,panic=pause,watchdog=pause")
}

func (m Machine) addBoot(a *argv) {
	if m.Kernel == "" {
		return
	}
	a.add("-kernel", m.Kernel)
	if m.Initrd != "" {
		a.add("-initrd", m.Initrd)
	}
	if m.Append != "" {
		a.add("-append", m.Append)
	}
}

func (m Machine) addDevices(a *argv) {
	if m.VGAMemMiB > 0 {
		a.addf("-device", "VGA,id=vga,vgamem_mb=%d", m.VGAMemMiB)
	}
	ide := 0
	for _, d := range m.Drives {
		bus := ""
		if d.Model == IDEDisk || d.Model == IDECD {
			bus = fmt.Sprintf(",bus=ide.%d", ide)
			if m.Type == "pc" {
				bus = fmt.Sprintf(",bus=ide.%d,unit=%d", ide/2, ide%2)
			}
			ide++
		}
		d.add(a, bus)
	}
	if m.NIC != nil {
		peer := ""
		if m.NIC.FD != 0 {
			a.addf("-netdev", "dgram,id=link,local.type=fd,local.str=%d", m.NIC.FD)
			peer = ",netdev=link"
		}
		// No option ROM: nothing boots from the link, and the file may not be there.
		a.addf("-device", "%s,id=nic,mac=%s,romfile=%s", m.NIC.Model, m.NIC.MAC, peer)
	}
	if len(m.Ports) > 0 {
		ports, vectors := serialSize(len(m.Ports))
		a.addf("-device", "virtio-serial-pci,id=vser,max_ports=%d,vectors=%d", ports, vectors)
		for i, p := range m.Ports {
			a.addf("-chardev", "socket,id=port%d,fd=%d", i+1, p.FD)
			// The id makes QEMU send VSERPORT_CHANGE for the port.
			a.addf("-device", "virtserialport,bus=vser.0,nr=%d,chardev=port%d,id=%s,name=%s",
				i+1, i+1, PortDeviceID(p.Name), p.Name)
		}
	}
	if m.Lane != nil {
		// QEMU opens the descriptor that it has inherited a second time, by its path.
		a.addf("-object", "memory-backend-file,id=lane,size=%dM,mem-path=/proc/self/fd/%d,share=on", m.Lane.MiB, m.Lane.FD)
		a.add("-device", "nvdimm,id=nvdimm-lane,memdev=lane")
	}
	if !m.NoRNG {
		a.add("-object", "rng-builtin,id=rng")
		a.add("-device", "virtio-rng-pci,id=rng0,rng=rng")
	}
	if m.Panic {
		a.add("-device", "pvpanic,id=pvpanic")
	}
}

// PortDeviceID is the id of a port's device: what QEMU's event VSERPORT_CHANGE
// calls the port.
func PortDeviceID(name string) string { return "port-" + name }

// serialSize gives the controller's max_ports (number 0 is reserved for a console)
// and its interrupt vectors: a receive and a transmit queue for each port and for
// control, and one vector for changes of configuration. With fewer Linux falls
// back to one shared vector, and every byte on one port wakes all of them.
func serialSize(ports int) (maxPorts, vectors int) {
	maxPorts = ports + 1
	return maxPorts, 2*(maxPorts+1) + 1
}

func (d Drive) add(a *argv, bus string) {
	node := "drive-" + d.ID
	b := fmt.Sprintf("driver=%s,node-name=%s,read-only=%s", d.Format, node, onOff(d.ReadOnly))
	if d.Volatile {
		b += ",cache.no-flush=on"
	}
	if !d.ReadOnly {
		b += ",discard=unmap"
	}
	b += ",file.driver=file,file.filename=" + escape(d.File)
	a.add("-blockdev", b)

	dev := fmt.Sprintf("%s,id=%s,drive=%s", d.Model, "disk-"+d.ID, node) + bus
	if d.Model == Floppy {
		dev += ",drive-type=144"
	}
	if d.Boot > 0 {
		dev += fmt.Sprintf(",bootindex=%d", d.Boot)
	}
	if d.Serial != "" {
		dev += ",serial=" + d.Serial
	}
	a.add("-device", dev)
}

// argv collects arguments.
type argv []string

func (a *argv) add(args ...string) { *a = append(*a, args...) }

func (a *argv) addf(option, format string, args ...any) {
	a.add(option, fmt.Sprintf(format, args...))
}

// escape doubles commas, which end a value in QEMU's option syntax.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
