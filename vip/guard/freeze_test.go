package guard

const childEnv = "RAFTVIP_GUARD_CHILD"

func childMain() int { return 0 }
