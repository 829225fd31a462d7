// Package archtest keeps the promises about the code's shape that a compiler
// does not: which package may import which, and the manners that every file
// has in common.
//
// Check parses every Go file of the module, whatever its build constraints,
// and hands the syntax to each rule in turn. Nothing is type-checked against
// its dependencies and nothing is compiled, so the whole run takes about as
// long as reading the files, and a rule sees the Windows file on Linux too.
// Folders named testdata, vendor and node_modules, hidden ones, and modules
// of their own below this one are left alone; what says "Code generated …
// DO NOT EDIT." is held to the imports only.
//
// The rules:
//
//   - layers: the table of packages, each with those of ours that it may
//     import. A new package is added there first.
//   - outside: libraries that only some packages may import, such as the
//     store of the index, and the calls that belong to the command alone,
//     such as os.Exit.
//   - documents: a package tells its story; no file is called util; a file
//     past 500 lines says why; no promise is left in a comment.
//   - state: no init functions, and no package-level variables but errors,
//     pools and tables that nobody writes to.
//   - tests: leak checks, build tags, names and skips.
//   - handlers: ids on the grid are constants, in the band of their package,
//     each given once.
//
// Every rule is itself tested on small trees that break it, in testdata. A
// rule that is wrong for a good piece of code is changed here, with the
// reason, rather than worked around there.
package archtest
