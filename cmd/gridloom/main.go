// Gridloom is one program: a node of a mesh, and the commands to use one.
//
// # What runs
//
// main hands the process's arguments, environment and streams to run, which
// knows no globals and returns the exit code: main has the only os.Exit, and
// a test runs whole commands in its own process.
//
// Three kinds of command read settings (config.go), each from its sources:
// serve from flags, GRIDLOOM_* variables and a YAML file; dev and the clients
// from flags and variables. settings.go makes all three spellings from one
// struct's tags and remembers where each value came from, so that an error
// about it (also one that package node finds later) names what its user wrote.
//
//	serve.go, dev.go      settings → node.Config → node.Open, Run, Close
//	credentials.go        the key and mesh secret: given, or made and kept
//	rotate.go             those in files, read again when they change
//	dial.go               settings → one gRPC connection → client
//	put.go, get.go, …     one client command each, over client
//	batch.go              many of a thing at once, each failure told
//	top.go, topview.go    samples as they come: tables, and the screen they are on
//	doctor.go             what the nodes measured; findings.go judges it
//	print.go              what is printed, as text or as JSON
//	exit.go               what an error means: message, reason, exit code
//
// # Goroutines
//
// A client command does one thing in the goroutine it was called in, or many
// in a batch, whose wait joins them. top receives in a second one, which it joins,
// and reads keys in a third, which ends with the process. A progress bar has a goroutine of its
// own, joined when the bar ends. serve and dev run nodes; they return when the
// nodes have ended and are closed. The first signal cancels the context that
// all of this hangs on, and every command then removes what it has half
// written; the second signal kills.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/grpclog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from then on a signal has its usual effect
	env := os.Environ()
	quietGRPC(env)
	code := exitFailed
	if err := errors.Join(forgetOTel(env, os.Unsetenv), inheritOTel(env, os.Setenv)); err != nil {
		tell(os.Stderr, false, "", err)
	} else {
		code = run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, env)
	}
	stop()
	os.Exit(code)
}

// quietGRPC keeps the lines of its own that gRPC and its gateway write from
// standard error: they tell of what clients do, in their words ("Failed to send
// response chunk"), and are no lines of the node's log. GRPC_GO_LOG_SEVERITY_LEVEL
// asks for them.
func quietGRPC(env []string) {
	if !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "GRPC_GO_LOG_") }) {
		grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	}
}

// app is one run of the program: what it was given by the outside.
type app struct {
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	env     []string
	json    bool // --json
	started bool // a command's own code runs: its arguments were in order
	out     *printer
	meter   *meter // the one that is shown, or nil
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, env: env}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	var told *reported
	if errors.As(err, &told) {
		return told.code
	}
	var usage *usageError
	if !a.started && !errors.As(err, &usage) {
		err = &usageError{err}
	}
	tell(stderr, a.json || slices.Contains(args, "--json"), name(cmd), err)
	return exitCode(err)
}

// name is a command's without the program's: "put".
func name(cmd *cobra.Command) string {
	_, rest, _ := strings.Cut(cmd.CommandPath(), " ")
	return rest
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "gridloom",
		Short: "Keep objects on a mesh of machines and reach them from any of them",
		Long: `Gridloom keeps objects on a mesh of machines and serves each of them from
any node.

gridloom dev starts a mesh of three nodes in this one process and prints
commands to try. gridloom serve runs one node. The others are clients of a
node's gRPC listener: objects are addressed as BUCKET/KEY, "-" is standard
input or output, and --json makes every answer JSON.

Exit codes: 0 done, 1 failed, 2 the command can't be run as it was given,
3 the bucket or object is not there.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       programVersion(),
		PersistentPreRun: func(*cobra.Command, []string) {
			a.started = true
			a.out = &printer{w: a.stdout, json: a.json, before: a.clearMeter}
		},
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON: one object, or one a line for lists; errors too, on stderr")
	root.SetFlagErrorFunc(flagError)
	root.SetVersionTemplate("gridloom {{.Version}}\n")
	root.AddGroup(
		&cobra.Group{ID: "server", Title: "Servers:"},
		&cobra.Group{ID: "client", Title: "Clients:"},
	)
	root.AddCommand(
		a.devCommand(), a.serveCommand(), a.keygenCommand(), a.versionCommand(),
		a.makeBucketCommand(), a.removeBucketCommand(), a.putCommand(), a.getCommand(),
		a.listCommand(), a.statCommand(), a.copyCommand(), a.moveCommand(), a.removeCommand(),
		a.clusterCommand(), a.topCommand(), a.traceCommand(), a.logsCommand(), a.doctorCommand(), a.nodeCommand(), a.driveCommand(), a.poolCommand(), a.healCommand(), a.bucketCommand(), a.certsCommand(), a.iamCommand(), a.shareCommand(),
	)
	root.InitDefaultCompletionCmd()
	if cmd, _, err := root.Find([]string{"completion"}); err == nil {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() } // else it takes any argument for a shell
	}
	return root
}

// flagError words what pflag refuses as the other sources' errors are.
func flagError(cmd *cobra.Command, err error) error {
	var (
		invalid *pflag.InvalidValueError
		unknown *pflag.NotExistError
	)
	switch {
	case errors.As(err, &invalid):
		return usageErrorf("--%s: %q %w", invalid.GetFlag().Name, invalid.GetValue(), plain(errors.Unwrap(invalid)))
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		known := map[string]bool{}
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known["--"+f.Name] = true })
		flag := "--" + unknown.GetSpecifiedName()
		return usageErrorf("%s: no such flag%s", flag, didYouMean(flag, known))
	}
	return &usageError{err}
}

// arguments checks how many there are; most < 0 is any number.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return usageErrorf("got %d arguments; want: %s", len(args), cmd.UseLine())
		}
		return nil
	}
}
