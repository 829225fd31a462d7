package certs

import (
	"net"
	"os"
	"slices"
	"strings"
)

// maxNames bounds the names of one certificate.
const maxNames = 100

// HostNames is what a certificate of a node is for: the node's name, which comes
// first, loopback, the machine's own name, and hosts, of which one that stands
// for all addresses ("", "0.0.0.0", "::") is replaced by those that there are.
func HostNames(node string, hosts ...string) []string {
	names := []string{node}
	add := func(name string) {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if ip := net.ParseIP(name); ip != nil {
			name = ip.String() // one spelling
		}
		if name != "" && len(names) < maxNames && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		add(name)
	}
	if machine, err := os.Hostname(); err == nil {
		add(machine)
	}
	for _, host := range hosts {
		ip := net.ParseIP(host)
		if host != "" && (ip == nil || !ip.IsUnspecified()) {
			add(host)
			continue
		}
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			continue // loopback and the names given have to do
		}
		for _, a := range addrs {
			if ipNet, ok := a.(*net.IPNet); ok && !ipNet.IP.IsLinkLocalUnicast() {
				add(ipNet.IP.String())
			}
		}
	}
	return names
}
