await until("the main window", () => about3Pane()?.folderTree);
return {};
