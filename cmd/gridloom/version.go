package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker in a release: -X main.version=v1.2.3.
var version = ""

// programVersion is the release, or what the Go tool knows of the build.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// versionInfo is the JSON form of gridloom version.
type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			return a.out.print(v, func() string {
				return fmt.Sprintf("gridloom %s %s %s/%s\n", v.Version, v.Go, v.OS, v.Arch)
			})
		},
	}
}
