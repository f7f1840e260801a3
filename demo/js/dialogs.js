// What waits for a person.
return { dialogs: dialogs() };
