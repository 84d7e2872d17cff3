package check

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"

	"github.com/raftvip/raftvip/internal/config"
)

// defaultUser is the user that scripts run as if none is configured and it exists
// (keepalived.conf(5), script_user).
const defaultUser = "keepalived_script"

// errNoDefaultUser is the refusal to run as root what nobody said should.
var errNoDefaultUser = errors.New("no user to run it as: enable_script_security is set, script_user is not, " +
	"and user " + defaultUser + " does not exist")

// An Identity is the user and the groups that a script runs as.
type Identity struct {
	User   string // name, for messages
	UID    int
	GID    int
	Groups []int // supplementary; meaningless if Own
	// Own: the daemon's own identity, nothing is changed.
	Own bool
}

// LookupIdentity returns the identity of a user and a group, both by name or
// number. Without a group it is the user's own. Supplementary groups are those
// the user has after a login, so that a check may, for example, use a socket
// that is open to a group. (keepalived gives none unless told to.)
func LookupIdentity(userName, groupName string) (Identity, error) {
	u, err := user.Lookup(userName)
	if unknown := (user.UnknownUserError)(""); errors.As(err, &unknown) {
		if _, nan := strconv.Atoi(userName); nan == nil {
			u, err = user.LookupId(userName)
		}
	}
	if err != nil {
		return Identity{}, fmt.Errorf("look up user %s: %w", userName, err)
	}
	id := Identity{User: u.Username}
	if id.UID, err = strconv.Atoi(u.Uid); err != nil {
		return Identity{}, fmt.Errorf("user %s: %w", userName, err)
	}
	gid := u.Gid
	if groupName != "" {
		g, err := user.LookupGroup(groupName)
		if unknown := (user.UnknownGroupError)(""); errors.As(err, &unknown) {
			if _, nan := strconv.Atoi(groupName); nan == nil {
				g, err = user.LookupGroupId(groupName)
			}
		}
		if err != nil {
			return Identity{}, fmt.Errorf("look up group %s: %w", groupName, err)
		}
		gid = g.Gid
	}
	if id.GID, err = strconv.Atoi(gid); err != nil {
		return Identity{}, fmt.Errorf("group of user %s: %w", userName, err)
	}
	id.Own = id.UID == os.Geteuid() && id.GID == os.Getegid()
	if id.Own {
		return id, nil
	}
	groups, err := u.GroupIds()
	if err != nil {
		return Identity{}, fmt.Errorf("look up groups of user %s: %w", userName, err)
	}
	for _, g := range groups {
		if n, err := strconv.Atoi(g); err == nil && !slices.Contains(id.Groups, n) {
			id.Groups = append(id.Groups, n)
		}
	}
	return id, nil
}

// ScriptIdentity returns the identity that a script runs as: its own user and
// group, else script_user, else user keepalived_script if it exists, else the
// daemon's. The last is refused to root under enable_script_security.
func ScriptIdentity(s *config.Script, g config.Global) (Identity, error) {
	switch {
	case s.User != "":
		return LookupIdentity(s.User, s.Group)
	case g.ScriptUser != "":
		return LookupIdentity(g.ScriptUser, g.ScriptGroup)
	}
	own := Identity{User: "root", UID: os.Geteuid(), GID: os.Getegid(), Own: true}
	if own.UID != 0 {
		own.User = strconv.Itoa(own.UID)
		return own, nil // it could not become anybody else
	}
	id, err := LookupIdentity(defaultUser, "")
	if unknown := (user.UnknownUserError)(""); !errors.As(err, &unknown) {
		return id, err
	}
	if g.EnableScriptSecurity {
		return Identity{}, errNoDefaultUser
	}
	return own, nil
}
