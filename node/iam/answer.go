package iam

import (
	"slices"
	"strings"
)

// answerParam begins the parameters by which a link to GET says how it is to be
// answered: response-content-type and so on. The rest is the field's name.
const answerParam = "response-"

// answerFields are the fields that a link may set, in lower case. What keeps a
// browser from running what is stored is not among them.
var answerFields = [...]string{
	"cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires",
}

// maxAnswerBytes is as much as an object's own headers may have.
const maxAnswerBytes = 1 << 10

// answerField is the field that a parameter sets.
func answerField(param string) (field string, ok bool) {
	field, ok = strings.CutPrefix(param, answerParam)
	return field, ok && slices.Contains(answerFields[:], field)
}

// validateAnswer checks one field that an answer is to have. The error is a
// *FieldError about its parameter.
func validateAnswer(field, value string) error {
	param := answerParam + field
	if value == "" {
		return invalid(param, "is empty")
	}
	return validateText(param, value, maxAnswerBytes)
}

// readAnswer takes one field of the answer from the link's query.
func (l *Link) readAnswer(field, value string) error {
	if l.method != "GET" {
		return badLink("%s%s is for GET", answerParam, field)
	}
	if err := validateAnswer(field, value); err != nil {
		return badLink("%v", err)
	}
	for _, f := range l.answer {
		if f[0] == field {
			return badLink("%s%s is given twice", answerParam, field)
		}
	}
	l.answer = append(l.answer, [2]string{field, value})
	return nil
}

// signAnswer puts the fields of the answer into the link's query.
func (r *LinkRequest) signAnswer(l *Link) error {
	for _, f := range r.Answer {
		field := strings.ToLower(f[0])
		switch {
		case r.Method != "GET":
			return invalid("answer", "is for GET")
		case !slices.Contains(answerFields[:], field):
			return invalid("answer", "has a field that is none of %s", strings.Join(answerFields[:], ", "))
		case slices.ContainsFunc(l.answer, func(have [2]string) bool { return have[0] == field }):
			return invalid("answer", "has %s twice", field)
		}
		if err := validateAnswer(field, f[1]); err != nil {
			return within("answer", err)
		}
		l.answer = append(l.answer, [2]string{field, f[1]})
		l.pairs = append(l.pairs, [2]string{answerParam + field, f[1]})
	}
	return nil
}

// Answer are the fields that the answer to a GET is to have in place of the
// object's own, where a link says so: names in lower case and values, which are
// UTF-8 without control characters. They are not to be changed.
func (p Principal) Answer() [][2]string {
	if p.is == nil || p.is.link == nil {
		return nil
	}
	return p.is.link.answer
}
