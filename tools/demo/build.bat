@echo off
rem The demo's build, run in the guest: cmd /c S:\demo-src\build.bat
rem
rem Environment; run.sh sets all but the last two, hostagent sets out:
rem   SRC      the sample's sources     S:\demo-src
rem   TCC      TinyCC                   S:\tinycc-windows-...
rem   GOTOOLS  Go's compile and link    S:\go-windows-...
rem   ESBUILD  esbuild                  S:\esbuild-windows-...
rem   out      where the results go     S:\...
rem   WORK     a local directory that is made anew; default %TEMP%\winvm-demo
rem
rem The sources come from S:, the work is done on a local disk, what was built is run and its
rem output checked, and only then does anything go to %out%. Any failure: exit code 1.
setlocal
if "%SRC%"=="" echo build.bat: SRC is not set& exit /b 1
if "%TCC%"=="" echo build.bat: TCC is not set& exit /b 1
if "%GOTOOLS%"=="" echo build.bat: GOTOOLS is not set& exit /b 1
if "%ESBUILD%"=="" echo build.bat: ESBUILD is not set& exit /b 1
if "%out%"=="" echo build.bat: out is not set& exit /b 1
if "%WORK%"=="" set WORK=%TEMP%\winvm-demo
rem The Go tools live for a moment only: collecting their garbage would cost more than it frees.
set GOGC=off

set step=copy the sources from %SRC% to %WORK%
echo %step%
if exist "%WORK%" rd /s /q "%WORK%"
md "%WORK%" || goto failed
xcopy "%SRC%" "%WORK%" /e /i /q /y >nul || goto failed
cd /d "%WORK%" || goto failed
if not exist go\crc\crc.go goto failed
md bin || goto failed

set step=compile and link crctool.exe: TinyCC
echo %step%
for %%f in (main crc emit) do "%TCC%\tcc.exe" -Wall -Werror -Ic\include -c c\%%f.c -o c\%%f.o || goto failed
"%TCC%\tcc.exe" -o bin\crctool.exe c\main.o c\crc.o c\emit.o || goto failed

set step=run crctool.exe: it generates go\crc\table.go
echo %step%
bin\crctool.exe -go crc go\crc\table.go || goto failed

set step=compile and link crcsum.exe: Go
echo %step%
cd go || goto failed
set compile="%GOTOOLS%\bin\compile.exe" -trimpath "%CD%" -complete -pack -I "%GOTOOLS%\pkg" -I .
md demo || goto failed
%compile% -p demo/crc -o demo\crc.a crc\crc.go crc\table.go || goto failed
%compile% -p main -o main.a main.go || goto failed
"%GOTOOLS%\bin\link.exe" -s -w -buildid= -L "%GOTOOLS%\pkg" -L . -o ..\bin\crcsum.exe main.a || goto failed
cd .. || goto failed

set step=bundle spans.js: esbuild
echo %step%
"%ESBUILD%\esbuild.exe" ts\index.ts --bundle --format=esm --minify-syntax --log-level=warning --outfile=bin\spans.js || goto failed
find "duration" bin\spans.js >nul || goto failed
find "overlaps" bin\spans.js >nul && goto failed

set step=run both programs on the bundle: their sums must agree
echo %step%
bin\crctool.exe bin\spans.js >c.sum || goto failed
bin\crcsum.exe bin\spans.js >go.sum || goto failed
set csum=
set gosum=
set /p csum=<c.sum
set /p gosum=<go.sum
echo   crctool.exe says %csum%, crcsum.exe says %gosum%
if "%csum%"=="" goto failed
if not "%csum%"=="%gosum%" goto failed

set step=copy the results to %out%
echo %step%
if not exist "%out%" md "%out%"
for %%f in (bin\crctool.exe bin\crcsum.exe bin\spans.js go\crc\table.go c.sum) do copy /b /y %%f "%out%" >nul || goto failed
if not exist "%out%\c.sum" goto failed
cd /d "%TEMP%"
rd /s /q "%WORK%"
echo done
exit /b 0

:failed
echo build.bat: FAILED: %step% 1>&2
exit /b 1
