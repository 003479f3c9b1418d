// Package inside is what runs in the controller VM in the controller agent's
// place: see package vmsuite. It is built with the tag vmsuite only.
package inside
