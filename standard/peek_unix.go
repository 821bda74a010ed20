//go:build unix && !aix

package standard

import "syscall"

// peekNow looks at what a socket holds. It does not wait, not even on one that blocks since
// somebody has taken a descriptor of it: (*os.File).Fd of what File returns.
const peekNow = syscall.MSG_PEEK | syscall.MSG_DONTWAIT
