// Package iam is identities and permissions: pure decisions, no I/O.
package iam
