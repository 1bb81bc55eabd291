"""Common names of people, and words that columns with personal data are called by.

Short on purpose: a column is judged by the share of its values that are known, so a few hundred
names do. Words that are colours, months, places or virtues as often as names are left out.
"""

from __future__ import annotations

import re


def _listed(text: str) -> frozenset[str]:
    """Entries of a list with commas, or of one with spaces only."""
    entries = re.split(r"\s*,\s*" if "," in text else r"\s+", " ".join(text.split()))
    return frozenset(entries)


GIVEN = _listed("""
    aaron abigail adam adrian ahmed aisha alan albert alejandro alex alexander alexandra alexis ali
    alice allison amanda amber amy ana andrea andreas andrew angela anja ann anna anne anthony
    antonio arthur ashley barbara benjamin bernd bethany betty beverly bianca brandon brandy brenda
    brian brittany bruno bryan camille carlos carol caroline catherine charles cheryl chiara
    christian christina christine christoph christopher cindy claire claudia colleen connie courtney
    craig cristina crystal cynthia daniel danielle david dawn deborah debra denise dennis diana
    diane dmitri dominique donald donna dorothy douglas edward elena elizabeth emily emma eric
    erica erin eva evelyn fatima felix fernando francesca francesco francois frank franziska
    frederick gabriel gary george gerald gina giovanni giulia giuseppe gloria gregory guillaume
    gustavo hannah hans harold heather heidi heinrich helen helmut henry hiroshi holly ibrahim
    ingrid irina isabel isabella isabelle ivan jack jacob jacqueline james jamie jan jane janet
    janice jason javier jean jeffrey jennifer jens jeremy jerry jessica jill joan joanna joao johan
    johannes john johnny jonathan jorge jose joseph joshua joyce juan judith judy juergen julia
    julie justin karen karl katarzyna katharina katherine kathleen kathryn kathy katie kayla keith
    kelly kelsey kenneth kevin kimberly klaus kristen kristin kristina kurt kyle larry lars laura
    lauren laurent lawrence leonardo leslie linda lindsay lisa logan louis louise lucas lucia luis
    lukas lydia maarten magdalena manfred marco margaret maria marie marilyn mario mark markus
    martha martin mary mateusz matthew matthias megan melanie melissa michael michelle miguel
    misty mohamed mohammad mohammed monica monika monique muhammad nancy natalia natalie nathan
    nathaniel nicholas nicole nicolas nikhil nina noah olga olivia omar pablo pamela patricia
    patrick paul paula pedro peter petra philip philippe phillip pierre piotr priya rachel rahul
    rajesh ralph randall randy raul raymond rebecca renee ricardo richard robert roberto roger
    ronald rosa ruth ryan samantha samuel sandra sanjay sara sarah scott sean sebastian sergei
    sergio shannon sharon shirley silvia simon sofia sophie stacey stacy stefan stefanie stephanie
    stephen steven sunil susan susanne suresh sven svetlana tamara tammy tanya tara tatiana teresa
    theresa thomas tiffany tim timothy tina tobias todd tomasz tracey tracy travis tyler ursula
    uwe valentina valerie vanessa vera veronica victor victoria vincent vladimir walter wei wendy
    werner wilhelm william wolfgang xavier yan yolanda yuki yvonne zachary zoe
""")
SURNAMES = _listed("""
    adams ahmed alexander allen alvarez anderson andersson bailey bauer becker bell bennett bernard
    bianchi brooks bryant butler campbell castillo chavez chen clark colombo cooper costa
    cox cruz daniels davis de diaz dubois durand edwards evans fernandez ferrari ferreira fischer
    fisher flores foster garcia gomez gonzales gonzalez graham griffin guerrero gupta gutierrez
    hansen harris harrison hayes henderson hernandez hoffmann howard huber hughes ivanov
    jansen jenkins jensen jimenez johansson johnson jones kaur kelly khan kim klein koch kovacs
    kowalski kumar larsen lee lefebvre leroy lewis li lin lopez martin martinez mcdonald
    mendoza meyer miller mitchell moore morales moreau moreno morgan morris mueller muller munoz
    murphy murray myers navarro nelson nguyen nielsen novak nowak olsen ortiz owens park patel
    perez perry peterson petrov pham phillips popescu powell ramirez ramos reed reyes reynolds
    richards richardson richter rivera roberts robinson rodriguez rogers romano romero rossi ruiz
    russell russo sanchez sanders santos schmidt schmitt schneider schulz schwarz scott sharma
    silva simmons simpson singh smith sousa stevens stewart sullivan suzuki svensson tanaka
    thompson torres tran turner vargas vasquez vogel wagner walker wang ward watanabe watson weber
    williams wilson wolf wong wright wu yamamoto yang zhang zimmermann
""")

COLUMN_WORDS = {
    "e-mail address": _listed("""
        email, e mail, mail, email address, emailaddress, courriel, correo
    """),
    "payment card": _listed("""
        card, card number, cardnumber, card no, cc num, cc number, ccnum, pan, credit
        card, creditcard, kartennummer, carte, tarjeta
    """),
    "bank account": _listed("""
        iban, account number, bank account, kontonummer
    """),
    "phone number": _listed("""
        phone, phone number, phonenumber, telephone, tel, mobile, cell, cellphone, fax,
        msisdn, telefon, telefonnummer, handy, telefono, telefoon, celular, movil,
        portable, phone no
    """),
    "national id": _listed("""
        ssn, social security, social security number, national id, nino, ni number, tax
        id, taxid, tin, steuer id, steuernummer, idnr, nir, insee, dni, nie, codice
        fiscale, bsn, burgerservicenummer, aadhaar, aadhar, cpf, pesel, passport,
        passport number, personnummer, id card, sozialversicherungsnummer
    """),
    "IP address": _listed("""
        ip, ip address, ipaddress, ipv4, ipv6, client ip
    """),
    "date of birth": _listed("""
        dob, birth date, birthdate, date of birth, dateofbirth, birthday, birth day,
        born, geburtsdatum, geburtstag, date naissance, date de naissance, fecha
        nacimiento, fecha de nacimiento, data di nascita, data nascita, geboortedatum,
        data de nascimento, data nascimento, data urodzenia
    """),
    "person name": _listed("""
        first name, firstname, given name, givenname, forename, last name, lastname,
        surname, family name, familyname, full name, fullname, middle name, maiden name,
        fname, lname, vorname, nachname, familienname, prenom, nom de famille, nombres,
        apellido, apellidos, cognome, voornaam, achternaam, imie, nazwisko, fornamn,
        efternamn, fornavn, etternavn, efternavn, sobrenome, person name
    """),
    "postal address": _listed("""
        street, street address, address, addr, home address, postal address, strasse,
        anschrift, adresse, rue, calle, direccion, indirizzo, endereco, adres, ulica,
        address line
    """),
}
"""Kind: what columns of it are called, as lower-case words."""
MAYBE_NAMES = _listed("""
    name names first last nom nome nombre naam customer client employee contact owner holder patient
    user author person driver
""")
"""Columns called so hold names of people, or of airports: their values must tell."""
NOT_ADDRESSES = _listed("email mail ip mac web url wallet memory host")
