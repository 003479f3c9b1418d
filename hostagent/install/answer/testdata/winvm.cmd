@echo off
for %%d in (C D E F G H) do if exist %%d:\winvm\first-logon.cmd call %%d:\winvm\first-logon.cmd
