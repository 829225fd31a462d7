// Package e2e tests the program as its users have it: the built binary, in
// processes of its own, over its real doors, and the README's own commands.
// There is no code here but tests. They build cmd/gridloom once, with the race
// detector when they themselves run with it, stay on loopback, and end every
// process they start.
package e2e
