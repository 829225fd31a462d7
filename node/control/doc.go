// Package control is the mesh's replicated state behind Propose and Read.
package control
