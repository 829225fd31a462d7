package dataio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

const (
	identityName    = "drive.json"
	identityVersion = 1
)

// identity is drive.json: whose drive this is. A field may be added only with
// a new version, since a program that doesn't know it would ignore its meaning.
type identity struct {
	Version    int    `json:"version"`
	ID         string `json:"id"`         // UUID of the drive
	Deployment string `json:"deployment"` // the mesh that it belongs to
	Node       string `json:"node"`       // the name of the node that owns it
}

func (i identity) encode() []byte {
	b, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		panic(err) // an int and three strings
	}
	return append(b, '\n')
}

// parseIdentity parses drive.json. All its errors are ErrUnknownFormat.
func parseIdentity(content []byte) (identity, error) {
	unknown := func(err error) (identity, error) {
		return identity{}, &Error{Kind: ErrUnknownFormat, Err: fmt.Errorf("%s: %w", identityName, err)}
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(content, &head); err != nil {
		return unknown(err)
	}
	if head.Version != identityVersion {
		return unknown(fmt.Errorf("version %d, this program reads %d", head.Version, identityVersion))
	}
	var id identity
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&id); err != nil {
		return unknown(err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return unknown(errors.New("more than one JSON value"))
	}
	if _, err := ParseID(id.ID); err != nil {
		return unknown(fmt.Errorf("id: %w", err))
	}
	if id.Deployment == "" || id.Node == "" {
		return unknown(errors.New("deployment or node is missing"))
	}
	return id, nil
}

// readIdentity reads the identity of a held drive and compares it with what
// the options say; it is zero for a blank directory, which may be formatted.
func readIdentity(h *held, o Options) (id identity, blank bool, err error) {
	foreign := func(format string, args ...any) (identity, bool, error) {
		return identity{}, false, &Error{Kind: ErrForeign, Err: fmt.Errorf(format, args...)}
	}
	content, err := readSmall(h.root, identityName)
	if errors.Is(err, fs.ErrNotExist) {
		other, err := h.firstForeign()
		switch {
		case err != nil:
			return identity{}, false, err
		case other != "":
			return foreign("it holds %q but no %s", other, identityName)
		case o.DriveID != "":
			return foreign("it is blank, where drive %s is expected: is it mounted?", o.DriveID)
		}
		return identity{}, true, nil
	}
	if err != nil {
		return identity{}, false, err
	}
	if id, err = parseIdentity(content); err != nil {
		return identity{}, false, err
	}
	switch {
	case id.Deployment != o.Deployment:
		return foreign("it is a drive of deployment %s, this node is of %s", id.Deployment, o.Deployment)
	case id.Node != o.Node:
		return foreign("it is a drive of node %q, this is node %q", id.Node, o.Node)
	case o.DriveID != "" && id.ID != o.DriveID:
		return foreign("it is drive %s, where %s is expected", id.ID, o.DriveID)
	}
	return id, false, nil
}
