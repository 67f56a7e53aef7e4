package install

// OnStep has fn called after each step that lasts.
func (d *Dir) OnStep(fn func(name string)) { d.step = fn }

// ParseTrial is parseTrial.
var ParseTrial = parseTrial
