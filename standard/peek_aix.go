package standard

import "syscall"

const peekNow = syscall.MSG_PEEK | syscall.MSG_NONBLOCK
