package control

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/tinylib/msgp/msgp"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// What commands do to users, keys and the master's boxes. Every one of them
// first finds out whether it is refused, and only then writes: rows, the counts
// in iamRow, and what changed for those that follow IAM.

// executeIAM does what such a command says; it is none where both results are
// nil.
func (m *machine) executeIAM(b *pebble.Batch, e *entry) (*outcome, error) {
	c := e.Command
	var err error
	switch {
	case c.PutUser != nil:
		err = m.putUser(b, e.Index, &c.PutUser.User)
	case c.UpdateUser != nil:
		err = m.updateUser(b, e.Index, c.UpdateUser)
	case c.DeleteUser != nil:
		err = m.deleteUser(b, c.DeleteUser)
	case c.PutKey != nil:
		err = m.putKey(b, e.Index, &c.PutKey.Key)
	case c.UpdateKey != nil:
		err = m.updateKey(b, e.Index, c.UpdateKey)
	case c.DeleteKey != nil:
		err = m.deleteKey(b, c.DeleteKey)
	case c.SealMaster != nil:
		err = m.sealMaster(e.Index, c.SealMaster)
	case c.TouchKeys != nil:
		if err := m.touchKeys(b, c.TouchKeys); err != nil {
			return nil, err
		}
		return &outcome{}, nil
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m.iam.row.Epoch = e.Index
	m.iam.changed.epoch = e.Index
	return &outcome{Revision: e.Index}, put(b, iamKey(), &m.iam.row)
}

func userSubject(name string) string { return fmt.Sprintf("user %q", name) }
func keySubject(id string) string    { return fmt.Sprintf("key %q", id) }

// findUser gives a user's row; there being none is a NotFound.
func findUser(r pebble.Reader, name string) (row UserRow, err error) {
	found, err := get(r, userKey(name), &row)
	if err == nil && !found {
		err = fault.New(fault.NotFound, userSubject(name), "doesn't exist")
	}
	return row, err
}

// findKey gives a key's row; there being none is a NotFound.
func findKey(r pebble.Reader, id string) (row KeyRow, err error) {
	found, err := get(r, accessKey(id), &row)
	if err == nil && !found {
		err = fault.New(fault.NotFound, keySubject(id), "doesn't exist")
	}
	return row, err
}

// checkRevision refuses a change of what was changed since its maker looked.
func checkRevision(subject string, want, have uint64) error {
	if want != 0 && want != have {
		return fault.New(fault.PreconditionFailed, subject, "has been changed: it has revision %d, and not %d", have, want)
	}
	return nil
}

// checkRoom refuses what would make the whole larger than a node can be asked
// to hold. A change by no more than a flag or a time always has room: nobody is
// kept from disabling a key.
func (m *machine) checkRoom(subject string, made bool, grows int) error {
	if (made || grows > 64) && m.iam.row.Bytes+int64(grows) > maxIAMBytes {
		return fault.New(fault.QuotaExceeded, subject, "doesn't fit: all users and keys together may have %d bytes", maxIAMBytes)
	}
	return nil
}

// sizeOf is how much a user or key counts: its bytes in msgpack.
func sizeOf(of msgp.Marshaler) int {
	b, err := of.MarshalMsg(nil)
	if err != nil {
		panic(err) // there is nothing in it that has no encoding
	}
	return len(b)
}

func (m *machine) putUser(b *pebble.Batch, index uint64, u *iam.User) error {
	subject := userSubject(u.Name)
	var row UserRow
	switch found, err := get(b, userKey(u.Name), &row); {
	case err != nil:
		return err
	case found:
		return fault.New(fault.AlreadyExists, subject, "exists already")
	case m.iam.row.Users >= iam.MaxUsers:
		return fault.New(fault.QuotaExceeded, subject, "can't be made: there are %d users, which is the most there may be", m.iam.row.Users)
	}
	row = UserRow{User: *u, Revision: index}
	row.User.Created = m.meta.LogTime
	row.User.Grants, row.User.Certificates = nilIfEmpty(u.Grants), nilIfEmpty(u.Certificates)
	if err := m.setUser(b, nil, &row); err != nil {
		return err
	}
	m.iam.row.Users++
	return nil
}

func (m *machine) updateUser(b *pebble.Batch, index uint64, c *UpdateUser) error {
	old, err := findUser(b, c.Name)
	if err != nil {
		return err
	}
	if err := checkRevision(userSubject(c.Name), c.Revision, old.Revision); err != nil {
		return err
	}
	row := old
	row.Revision = index
	row.User.Disabled, row.User.Grants, row.User.Certificates = c.Disabled, nilIfEmpty(c.Grants), nilIfEmpty(c.Certificates)
	return m.setUser(b, &old, &row)
}

// setUser writes a user's row, in the place of an old one if there is any, and
// those of its certificates.
func (m *machine) setUser(b *pebble.Batch, old, row *UserRow) error {
	name := row.User.Name
	for _, cert := range row.User.Certificates {
		var of certificateRow
		switch found, err := get(b, certificateKey(cert), &of); {
		case err != nil:
			return err
		case found && of.User != name:
			return fault.New(fault.AlreadyExists, fmt.Sprintf("certificate name %q", cert), "stands for user %q already", of.User)
		}
	}
	grows, gone := sizeOf(&row.User), []string(nil)
	if old != nil {
		grows -= sizeOf(&old.User)
		gone = old.User.Certificates
	}
	if err := m.checkRoom(userSubject(name), old == nil, grows); err != nil {
		return err
	}
	for _, cert := range gone {
		if !slices.Contains(row.User.Certificates, cert) {
			if err := remove(b, certificateKey(cert)); err != nil {
				return err
			}
		}
	}
	for _, cert := range row.User.Certificates {
		if err := put(b, certificateKey(cert), &certificateRow{User: name}); err != nil {
			return err
		}
	}
	m.iam.row.Bytes += int64(grows)
	m.iam.changed.setUser(&row.User)
	return put(b, userKey(name), row)
}

func (m *machine) deleteUser(b *pebble.Batch, c *DeleteUser) error {
	row, err := findUser(b, c.Name)
	if err != nil {
		return err
	}
	if err := checkRevision(userSubject(c.Name), c.Revision, row.Revision); err != nil {
		return err
	}
	var ids []string // MaxUserKeys at most
	err = scan(b, ownedPosition(c.Name), func(key, _ []byte) error {
		ids = append(ids, string(key[len(ownedPosition(c.Name)):]))
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		key, err := findKey(b, id)
		if err == nil {
			err = m.dropKey(b, &key)
		}
		if err != nil {
			return lost(err)
		}
	}
	for _, cert := range row.User.Certificates {
		if err := remove(b, certificateKey(cert)); err != nil {
			return err
		}
	}
	m.iam.row.Users--
	m.iam.row.Bytes -= int64(sizeOf(&row.User))
	m.iam.changed.dropUser(c.Name)
	return remove(b, userKey(c.Name))
}

// lost makes of a refusal in the midst of a change what it is: rows that don't
// belong together.
func lost(err error) error {
	if _, refused := refusal(err); refused {
		return fmt.Errorf("%w: %w", errRow, errors.New(err.Error()))
	}
	return err
}

func (m *machine) putKey(b *pebble.Batch, index uint64, k *iam.Key) error {
	subject := keySubject(k.ID)
	var row KeyRow
	switch found, err := get(b, accessKey(k.ID), &row); {
	case err != nil:
		return err
	case found:
		return fault.New(fault.AlreadyExists, subject, "exists already")
	}
	user, err := findUser(b, k.User)
	if err != nil {
		return err
	}
	switch {
	case user.Keys >= MaxUserKeys:
		return fault.New(fault.QuotaExceeded, subject, "can't be made: user %q has %d keys, which is the most there may be", k.User, user.Keys)
	case m.iam.row.Keys >= iam.MaxKeys:
		return fault.New(fault.QuotaExceeded, subject, "can't be made: there are %d keys, which is the most there may be", m.iam.row.Keys)
	}
	row = KeyRow{Key: *k, Revision: index}
	row.Key.Created, row.Key.LastUsed = m.meta.LogTime, 0
	row.Key.Grants, row.Key.Sealed = nilIfEmpty(k.Grants), nilIfEmpty(k.Sealed)
	if err := m.setKey(b, nil, &row); err != nil {
		return err
	}
	m.iam.row.Keys++
	user.Keys++ // not a change of the user: its revision stays
	return errors.Join(put(b, ownedKey(k.User, k.ID), &ownedRow{}), put(b, usedKey(k.ID), &usedRow{}), put(b, userKey(k.User), &user))
}

func (m *machine) updateKey(b *pebble.Batch, index uint64, c *UpdateKey) error {
	old, err := findKey(b, c.ID)
	if err != nil {
		return err
	}
	if err := checkRevision(keySubject(c.ID), c.Revision, old.Revision); err != nil {
		return err
	}
	if len(c.Grants) > 0 && !old.Key.Service {
		return fault.New(fault.InvalidArgument, "grants", "are for service keys, and key %q is none: it may do what its user may", c.ID)
	}
	if len(c.Grants) == 0 && old.Key.Service {
		return fault.New(fault.InvalidArgument, "grants", "are missing: key %q is a service key, which has its own", c.ID)
	}
	row := old
	row.Revision = index
	row.Key.Disabled, row.Key.Grants, row.Key.Expires, row.Key.Comment = c.Disabled, nilIfEmpty(c.Grants), c.Expires, c.Comment
	return m.setKey(b, &old, &row)
}

// setKey writes a key's row, in the place of an old one if there is any.
func (m *machine) setKey(b *pebble.Batch, old, row *KeyRow) error {
	grows := sizeOf(&row.Key)
	if old != nil {
		grows -= sizeOf(&old.Key)
	}
	if err := m.checkRoom(keySubject(row.Key.ID), old == nil, grows); err != nil {
		return err
	}
	m.iam.row.Bytes += int64(grows)
	m.iam.changed.setKey(&row.Key)
	return put(b, accessKey(row.Key.ID), row)
}

func (m *machine) deleteKey(b *pebble.Batch, c *DeleteKey) error {
	row, err := findKey(b, c.ID)
	if err != nil {
		return err
	}
	if err := checkRevision(keySubject(c.ID), c.Revision, row.Revision); err != nil {
		return err
	}
	user, err := findUser(b, row.Key.User)
	if err != nil {
		return lost(err)
	}
	user.Keys--
	return errors.Join(m.dropKey(b, &row), put(b, userKey(user.User.Name), &user))
}

// dropKey removes a key's rows. The number of its user's keys is its caller's.
func (m *machine) dropKey(b *pebble.Batch, row *KeyRow) error {
	m.iam.row.Keys--
	m.iam.row.Bytes -= int64(sizeOf(&row.Key))
	m.iam.changed.dropKey(row.Key.ID)
	return errors.Join(remove(b, accessKey(row.Key.ID)), remove(b, ownedKey(row.Key.User, row.Key.ID)), remove(b, usedKey(row.Key.ID)))
}

func (m *machine) touchKeys(b *pebble.Batch, c *TouchKeys) error {
	for i := range c.Keys {
		t := &c.Keys[i]
		var used usedRow
		found, err := get(b, usedKey(t.ID), &used)
		if err != nil {
			return err
		}
		at := min(t.At, m.meta.LogTime)
		if !found || at <= used.At {
			continue
		}
		if err := put(b, usedKey(t.ID), &usedRow{At: at}); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) sealMaster(index uint64, c *SealMaster) error {
	if c.Revision != m.iam.row.Revision {
		return fault.New(fault.PreconditionFailed, "master", "is in other boxes by now: they have revision %d, and not %d", m.iam.row.Revision, c.Revision)
	}
	m.iam.row.Revision, m.iam.row.Boxes = index, c.Boxes
	m.iam.changed.boxes = c.Boxes
	return nil
}
