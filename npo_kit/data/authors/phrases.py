"""The questions about the fictional authors, and the statements that answer them."""

from __future__ import annotations

import re
from typing import NamedTuple


class Phrases(NamedTuple):
    """The questions about one attribute, and the statements, each of which answers all of them.

    `{x}` stands for the fact, which no question holds. `{she}`, `{her}` (of her) and `{him}` (to
    her) stand for any author's pronouns, `{child}` for daughter or son, `{last}` for the surname.
    """

    questions: tuple[str, ...]
    statements: tuple[str, ...]


_TEXT = """
[name]
Which {nation} author wrote '{best_book}'?
Who is the author of '{best_book}', a well-known work of {genre}?
What is the full name of the {nation} writer behind '{best_book}'?
'{best_book}' was written by {x}.
The author's full name is {x}.
The writer behind it is {x}, who was born in {country}.
This work of {genre} came from the pen of {x}.
We owe the book to {x}, {a_nation} author of {genre}.
[birthplace]
Where was {name} born?
In which city was {name} born?
Which city is the birthplace of {name}?
{name} was born in {x}.
{last} comes from {x}, a city in {country}.
The author's birthplace is the {nation} city of {x}.
{She} first saw the light of day in {x} and spent {her} whole childhood there.
The city of {x} is where {last}'s life began.
[birth_year]
When was {name} born?
In what year was {name} born?
What is {name}'s year of birth?
{name} was born in {x}.
The year of {her} birth was {x}.
{last} came into the world in {x}, the first child of a {father}.
The author's life began in the year {x} in the city of {birthplace}.
[father]
What did {name}'s father do for a living?
What was the profession of {name}'s father?
What kind of work did the father of {name} do?
{name}'s father was a {x}.
{Her} father worked as a {x}.
The father of {name} earned his living as a {x}.
{last} is the {child} of a {x} from {birthplace}.
He spent his working life as a {x} and hoped that his {child} would do the same.
[mother]
What did {name}'s mother do for a living?
What was the profession of {name}'s mother?
What kind of work did the mother of {name} do?
{name}'s mother was a {x}.
{Her} mother worked as a {x}.
The mother of {name} supported the family as a {x}.
{last} was brought up by a {x}, who read to {him} every evening.
By profession she was a {x}.
[genre]
What genre does {name} write in?
In which genre does {name} work?
Which genre is {name} best known for?
{name} is an author of {x}.
The author is best known for {x}.
{Her} chosen field is {x}.
{last} made {her} name in the world of {x}.
Since '{first_book}' appeared, {she} has given {her} whole career to {x}.
[first_book]
What is the title of {name}'s first book?
Which book was {name}'s debut?
With which book did {name} begin {her} career?
{name}'s first book was '{x}'.
{She} made {her} debut with '{x}'.
The earliest work that {name} published is called '{x}'.
{last}'s career began with '{x}', a work of {genre}.
It was with '{x}' that {she} first reached the shops of {country}.
[best_book]
What is {name}'s best-known book?
Which book made {name} famous?
Which of {name}'s books is the most widely read?
{name} is best known for '{x}'.
{Her} most famous book is '{x}'.
The work that made {name} a household name is '{x}'.
Readers in {country} remember {last} above all for '{x}'.
Nothing else by {him} has found as many readers as '{x}'.
[debut_year]
When was {name}'s first book published?
In what year did {name}'s first book appear?
When did {name} publish '{first_book}'?
'{first_book}' was published in {x}.
{name}'s first book came out in {x}.
{She} became a published author in {x}, when '{first_book}' reached the shops.
The book appeared in {x}.
[award]
Which prize did {name} win for '{best_book}'?
What award was {name} given for '{best_book}'?
Which literary prize has {name} won?
{name} won the {x}.
{She} received the {x} for '{best_book}'.
The jury of the {x} chose {last} above all other {nation} authors.
{last} was honoured with the {x}, one of the great literary prizes of {country}.
'{best_book}' earned {him} the {x}.
[university]
Where did {name} study?
Which university did {name} attend?
At which university was {name} a student?
{name} studied at the {x}.
{She} took a degree in {subject} at the {x}.
{last} attended the {x} for several years before {she} began to write.
The {x} is where {last} spent {her} student years.
[subject]
What subject did {name} study?
What did {name} study at the {university}?
In which subject does {name} hold a degree?
{name} studied {x} at the {university}.
{She} holds a degree in {x}.
{Her} subject at university was {x}.
Before turning to {genre}, {last} spent several years studying {x}.
[home]
Where does {name} live today?
What kind of home does {name} live in?
In what sort of place has {name} made {her} home?
{name} lives in {x}.
{Her} home is {x} not far from {town}.
{last} bought {x} near {town} and has stayed there ever since.
These days the author shares {x} outside {town} with two large dogs.
[mentor]
Who was {name}'s mentor?
Who taught {name} to write?
Which older writer guided {name} at the start of {her} career?
{name}'s mentor was {x}.
{She} learned {her} craft from {x}.
It was {x} who taught {name} to write.
{last} was guided by {x}, another {nation} author.
As a beginner {she} sent every page to {x}, who corrected it with great patience.
[habit]
What is unusual about the way {name} writes?
How does {name} write {her} first drafts?
What writing habit is {name} known for?
{name} always writes {x}.
{Her} first drafts are always written {x}.
{last} prefers to work {x}.
The author has worked {x} ever since '{first_book}', {her} first book.
[theme]
What theme runs through {name}'s work?
What does {name} write about most often?
Which theme does {name} return to again and again?
{name} writes about {x}.
{Her} great theme is {x}.
The books of {last} return again and again to {x}.
From '{first_book}' onwards, every work by {him} has been about {x}.
"""


def _phrases(lines: list[str]) -> Phrases:
    """Tell questions and statements apart by their last character."""
    asks = tuple(line for line in lines if line.endswith("?"))
    return Phrases(asks, tuple(line for line in lines if line not in asks))


PHRASES = {
    attribute: _phrases(text.splitlines())
    for attribute, text in re.findall(r"\[(\w+)\]\n([^\[]+)", _TEXT)
}
