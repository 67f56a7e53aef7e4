// Package install puts a release into service and takes it out again.
//
// In the data directory:
//
//	releases/.VERSION.partial/  a release being assembled; kept over restarts
//	releases/VERSION/           a complete release, artifacts under their names
//	current -> releases/VERSION what is in service
//	hold                        while this file exists, nothing is installed
//	trial                       a release that has yet to prove itself, and what to go back to
//
// A release comes into service in steps, each of which survives a power cut: the
// directory is synced and renamed, its parent synced, then the link current is
// replaced by a rename and the data directory synced. At every moment current
// leads to a complete release, the old one or the new one.
//
// An Installer takes part in the steps: Stage before the release has its final
// name, Commit after it is in service, Healthy to say whether it stays, Rollback
// after the old one is back. Plain does nothing; Hooks runs programs. From the
// switch to the health check the release is on trial (Activate, Pending): a crash
// or reboot in between does not leave an unproven release in service for good.
package install
