package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/raftvip/raftvip/internal/config"
)

// Whoever can change what a script of root's names decides what root does.
func TestScriptsOfRoot(t *testing.T) {
	for _, tt := range []struct{ command, unsafe string }{
		{"/opt/check", ""},
		{"/opt/check /etc/none /home/user/sock", ""},
		{"/home/user/check", "/home/user is not owned by root"},
		{"/usr/bin/link-to-home", "/home/user is not owned by root"},
		{"/opt/writable", "/opt/writable is writable by group or others"},
		{"/bin/sh /home/user/check", "/home/user is not owned by root"},
		{"/bin/sh -c '/home/user/check 1; exit 0'", "/home/user is not owned by root"},
		{"/bin/sh -c 'x=/home/user/check'", "/home/user is not owned by root"},
		{"/opt/check /usr/bin/link-to-home", "/home/user is not owned by root"},
		{"/opt/check /home/user", "/home/user is not owned by root"},
		{"/opt/check /tmp", ""},
		{"/opt/by-env", "/usr/bin/open is writable by group or others"},
		{"/opt/by-home", "/home/user is not owned by root"},
	} {
		for _, security := range []bool{false, true} {
			for _, user := range []string{"root", "nobody"} {
				flag := ""
				if security {
					flag = "enable_script_security"
				}
				text := fmt.Sprintf(`global_defs {
	%s
}
vrrp_script chk {
	script "%s"
	user %s
}
vrrp_instance v {
	interface eth0
	virtual_router_id 1
	priority 100
	virtual_ipaddress {
		192.0.2.1/24
	}
	track_script {
		chk
	}
}
`, flag, tt.command, user)
				_, diags := config.LoadBytes("x", []byte(text), machine())
				found, severity := "", config.SeverityError
				for _, d := range diags {
					if strings.Contains(d.Message, "is writable") || strings.Contains(d.Message, "is not owned") {
						found, severity = d.Message, d.Severity
					}
				}
				switch {
				case user == "nobody" || tt.unsafe == "":
					if found != "" {
						t.Errorf("%s as %s: %s", tt.command, user, found)
					}
				case !strings.Contains(found, tt.unsafe) || (severity == config.SeverityWarning) == security:
					t.Errorf("%s, security %v: severity %v, %q; want %q", tt.command, security, severity, found, tt.unsafe)
				}
			}
		}
	}
}
