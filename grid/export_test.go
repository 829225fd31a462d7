package grid

// PoisonRecycled says that this build is in the debug mode.
const PoisonRecycled = poisonRecycled
